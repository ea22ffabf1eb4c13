import { ReactWidget } from '@jupyterlab/ui-components';
import { type Message, MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import React from 'react';

import { Disk, Gpus, LeaseSection, People, Release, Ssh } from './sections';
import { Happened } from './happened';
import { gpuIcon } from './icon';
import { Idle } from './idle';
import type { LeaseModel } from './model';
import type { IWords } from './words';

/** What the sections share. */
export interface IProps {
  model: LeaseModel;
  trans: IWords;
  /** Runs something that may be refused; what is said then is shown in the panel. */
  act: (work: () => Promise<void>, done: string) => void;
  busy: boolean;
  confirmRelease: () => Promise<void>;
}

/** The side panel. */
export class LeasePanel extends ReactWidget {
  constructor(
    private readonly model: LeaseModel,
    private readonly trans: IWords,
    private readonly confirmRelease: () => Promise<void>,
    private readonly say: (text: string) => void
  ) {
    super();
    this.id = 'gpudev-lease';
    this.addClass('gpudev-panel');
    this.title.icon = gpuIcon;
    this.title.caption = trans.__('GPU lease');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('GPU lease'));
    this.node.tabIndex = -1;
    model.changed.connect(() => {
      if (this.isVisible) {
        this.tellTrouble();
        this.update();
      }
    });
  }

  protected override onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this.model.shown = true;
    this.update();
  }

  protected override onAfterHide(msg: Message): void {
    super.onAfterHide(msg);
    this.model.shown = false;
  }

  protected override onActivateRequest(msg: Message): void {
    super.onActivateRequest(msg);
    this.node.focus();
  }

  private readonly act = (work: () => Promise<void>, done: string): void => {
    const focused = document.activeElement;
    this.busy = true;
    this.refusal = this.done = null;
    this.update();
    // In a promise from the beginning: what fails at once is told, too.
    Promise.resolve()
      .then(work)
      .then(
        () => (this.done = done),
        (error: unknown) => (this.refusal = error instanceof Error ? error.message : String(error))
      )
      .then(said => this.say(said))
      .finally(() => {
        this.busy = false;
        MessageLoop.sendMessage(this, Widget.Msg.UpdateRequest);
        void this.renderPromise?.then(() => this.refocus(focused));
      });
  };

  /** A button that was pressed could not keep the focus while it was disabled, or is gone. */
  private refocus(element: Element | null): void {
    for (const next of [element, this.node]) {
      if (document.activeElement === document.body && next instanceof HTMLElement) {
        next.focus();
      }
    }
  }

  /** Also to those who do not see it. */
  private tellTrouble(): void {
    if (this.model.trouble !== this.toldTrouble) {
      this.toldTrouble = this.model.trouble;
      if (this.toldTrouble) {
        this.say(this.toldTrouble);
      }
    }
  }

  protected override render(): JSX.Element {
    const { model, trans } = this;
    const lease = model.lease;
    const trouble = this.refusal ?? model.trouble;
    const props: IProps = {
      model,
      trans,
      act: this.act,
      busy: this.busy,
      confirmRelease: this.confirmRelease
    };
    return (
      <div className="gpudev-sections">
        {trouble ? <p className="gpudev-trouble">{trouble}</p> : null}
        {this.done ? <p className="gpudev-done">{this.done}</p> : null}
        {model.signedOut ? (
          <button type="button" className="gpudev-button" onClick={() => window.location.reload()}>
            {trans.__('Reload')}
          </button>
        ) : null}
        {lease?.reservation ? (
          <>
            {model.notice ? <Happened {...props} notice={model.notice} /> : null}
            <LeaseSection {...props} lease={lease} reservation={lease.reservation} />
            {lease.reservation.idle ? (
              <Idle {...props} lease={lease} idle={lease.reservation.idle} />
            ) : null}
            <Gpus {...props} lease={lease} />
            <People {...props} lease={lease} />
            <Ssh {...props} lease={lease} />
            <Disk {...props} lease={lease} />
            <Release {...props} lease={lease} />
          </>
        ) : (
          <p>
            {lease && !trouble
              ? trans.__('This server runs on no reservation.')
              : trans.__('The lease is not known yet.')}
          </p>
        )}
      </div>
    );
  }

  private busy = false;
  private refusal: string | null = null;
  private done: string | null = null;
  private toldTrouble: string | null = null;
}

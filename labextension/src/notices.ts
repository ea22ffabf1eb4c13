import { Notification } from '@jupyterlab/apputils';

import type { LeaseModel } from './model';
import { said } from './said';
import { choices, dueWarning, secondsLeft } from './time';
import { duration, hours, type IWords, moment } from './words';

/** As many characters as JupyterLab shows of a notification. */
const LONGEST = 140;

/** Warnings before the end, what has happened to the server, what was done, and when only a reload helps: to be
 * seen and to be heard. */
export class Notices {
  constructor(
    private readonly model: LeaseModel,
    private readonly trans: IWords
  ) {
    this.live = document.createElement('div');
    this.live.className = 'gpudev-live';
    this.live.setAttribute('role', 'status');
    this.live.setAttribute('aria-live', 'polite');
    document.body.append(this.live);
    model.changed.connect(() => this.look());
  }

  /** For screen readers. */
  say(text: string): void {
    this.live.textContent = text;
  }

  /** Something worked. */
  done(text: string): void {
    if (text) {
      this.say(text);
      Notification.success(text, { autoClose: 5000 });
    }
  }

  /** Something did not; the sentence says why. */
  refuse(text: string): void {
    this.say(text);
    Notification.error(text, { autoClose: false });
  }

  private look(): void {
    this.offerReload();
    this.tellNotice();
    const reservation = this.model.lease?.reservation ?? null;
    const end = reservation?.expires_at ?? '';
    if (this.given && this.given.end !== end) {
      Notification.dismiss(this.given.id);
      this.given = null;
    }
    const minutes = dueWarning(reservation, this.model.now, this.model.warnings, this.given);
    if (minutes === null || document.hidden) {
      return;
    }
    if (this.given) {
      Notification.dismiss(this.given.id);
    }
    this.given = { end, minutes, id: this.warn(minutes) };
  }

  private warn(minutes: number): string {
    const { model, trans } = this;
    const lease = model.lease;
    const left = secondsLeft(lease?.reservation ?? null, model.now) ?? 0;
    const text = trans.__('Your GPU lease ends in %1. Save your work, or extend it.', duration(left, trans));
    const amounts = lease?.visitor.owner ? choices(lease.reservation?.extension ?? null) : [];
    const amount = amounts[Math.min(1, amounts.length - 1)];
    this.say(text);
    return Notification.emit(text, minutes <= 5 ? 'error' : 'warning', {
      autoClose: false,
      actions:
        amount === undefined
          ? []
          : [
              {
                label: trans.__('Extend by %1', hours(amount, trans)),
                displayType: 'accent',
                callback: () => {
                  void this.extend(amount);
                }
              }
            ]
    });
  }

  private async extend(amount: number): Promise<void> {
    try {
      await this.model.extend(amount);
      this.done(this.trans.__('The lease is extended by %1.', hours(amount, this.trans)));
    } catch (error) {
      this.refuse(error instanceof Error ? error.message : String(error));
    }
  }

  /** Once on each page, until somebody puts it aside here or in the panel. */
  private tellNotice(): void {
    const { model, trans } = this;
    const notice = model.notice;
    if (document.hidden || notice?.at === this.happened?.at) {
      return;
    }
    if (this.happened) {
      Notification.dismiss(this.happened.id);
      this.happened = null;
    }
    if (notice) {
      const at = moment(new Date(notice.at), model.now, trans.locale);
      const text = `${at}: ${said(notice.text, model.now, trans)}`;
      this.say(text);
      const actions = [{ label: trans.__('Dismiss'), callback: () => model.dismiss() }];
      const id = Notification.emit(this.shortened(text), 'info', { autoClose: false, actions });
      this.happened = { at: notice.at, id };
    }
  }

  /** JupyterLab cuts a notification off anywhere; its first sentence is whole. */
  private shortened(text: string): string {
    const [first] = text.split(/(?<=\.) (?=[A-ZÄÖÜ])/);
    return text.length > LONGEST ? `${first} ${this.trans.__('The panel says more.')}` : text;
  }

  private offerReload(): void {
    if (!this.model.signedOut || this.offered) {
      return;
    }
    this.offered = true;
    const text = this.trans.__(
      'This page is no longer connected to its server. Reload it to go on; copy unsaved text first.'
    );
    this.say(text);
    Notification.error(text, {
      autoClose: false,
      actions: [
        {
          label: this.trans.__('Reload'),
          displayType: 'accent',
          callback: () => window.location.reload()
        }
      ]
    });
  }

  private readonly live: HTMLElement;
  private offered = false;
  private happened: { at: string; id: string } | null = null;
  private given: { end: string; minutes: number; id: string } | null = null;
}

import { ReactWidget } from '@jupyterlab/ui-components';
import React from 'react';

import { gpuIcon } from './icon';
import type { LeaseModel } from './model';
import { secondsLeft, urgency } from './time';
import { duration, type IWords } from './words';

/** The time left, in words; a click opens the panel. */
export class StatusItem extends ReactWidget {
  constructor(
    private readonly model: LeaseModel,
    private readonly trans: IWords,
    private readonly open: () => void
  ) {
    super();
    this.id = 'gpudev-status';
    this.addClass('gpudev-status');
    model.changed.connect(() => this.update());
  }

  protected override render(): JSX.Element | null {
    const { model, trans } = this;
    const reservation = model.lease?.reservation ?? null;
    if (!reservation) {
      return null;
    }
    const left = secondsLeft(reservation, model.now);
    const how = model.trouble && left === null ? 'none' : urgency(left, model.warnings);
    const words = timeLeft(left, reservation.state, trans);
    return (
      <button
        type="button"
        className={`gpudev-status-button gpudev-is-${how}`}
        aria-label={trans.__('GPU lease: %1. Open the panel.', words)}
        title={model.trouble ?? trans.__('GPU lease: %1', words)}
        onClick={this.open}
      >
        <gpuIcon.react tag="span" className="gpudev-status-icon" aria-hidden="true" />
        {words}
      </button>
    );
  }
}

/** "2 h 10 min left", or where the lease stands when nothing is left. */
export function timeLeft(seconds: number | null, state: string, trans: IWords): string {
  if (seconds === null) {
    return state === 'stopping' ? trans.__('lease is ending') : trans.__('lease is over');
  }
  return seconds > 0 ? trans.__('%1 left', duration(seconds, trans)) : trans.__('lease is ending');
}

import React from 'react';

import type { IIdleVerdict, ILease } from './lease';
import type { IProps } from './panel';
import { said } from './said';

/** Whether the lease counts as used, and why; nothing where policy does not look at that. */
export function Idle(props: IProps & { lease: ILease; idle: IIdleVerdict }): JSX.Element {
  const { idle, lease, trans, model, act, busy } = props;
  const asked = idle.state === 'idle' && idle.action !== 'nothing';
  return (
    <section className="gpudev-section">
      <h2>{trans.__('Use')}</h2>
      <p className={asked ? 'gpudev-trouble' : undefined}>{said(idle.summary, model.now, trans)}</p>
      <ul className="gpudev-list">
        {idle.reasons.map(reason => (
          <li key={reason}>{said(reason, model.now, trans)}</li>
        ))}
      </ul>
      {asked && lease.visitor.owner ? (
        <p className="gpudev-row">
          <button
            type="button"
            className="gpudev-button"
            disabled={busy || idle.keeps_left === 0}
            onClick={() => act(() => model.keep(), trans.__('The lease is kept.'))}
          >
            {trans.__('Keep it, I am working')}
          </button>
          <span className="gpudev-hint">
            {idle.keeps_left
              ? trans._n('possible once more', 'possible %1 times more', idle.keeps_left, idle.keeps_left)
              : trans.__('Not possible again before the lease is used.')}
          </span>
        </p>
      ) : null}
    </section>
  );
}

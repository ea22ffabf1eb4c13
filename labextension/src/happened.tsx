import React from 'react';

import type { INotice } from './lease';
import type { IProps } from './panel';
import { said } from './said';
import { moment } from './words';

/** What has happened to the server, and when: its kernels are gone, and nobody need look for the reason. */
export function Happened({ notice, model, trans }: IProps & { notice: INotice }): JSX.Element {
  return (
    <section className="gpudev-section">
      <h2>{trans.__('What has happened')}</h2>
      <p className="gpudev-trouble">{said(notice.text, model.now, trans)}</p>
      <p className="gpudev-row">
        <span className="gpudev-hint">{moment(new Date(notice.at), model.now, trans.locale)}</span>
        <button type="button" className="gpudev-button" onClick={() => model.dismiss()}>
          {trans.__('Dismiss')}
        </button>
      </p>
    </section>
  );
}

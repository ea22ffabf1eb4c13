import { Clipboard } from '@jupyterlab/apputils';
import React, { useState } from 'react';

import { HEIGHT, line, mean, WIDTH } from './curve';
import type { IGpuUse, ILease, IReservation, Role } from './lease';
import { commands, editorLink } from './links';
import type { IProps } from './panel';
import { said } from './said';
import { choices, ends, secondsLeft } from './time';
import { timeLeft } from './statusitem';
import { ago, gpus, hours, moment, size, type IWords } from './words';

type Props = IProps & { lease: ILease };

/** What is offered: the service decides, and it lets the owner only. */
function mayAct(props: Props): boolean {
  return props.lease.visitor.owner && !props.busy;
}

function Section(props: { title: string; children: React.ReactNode }): JSX.Element {
  return (
    <section className="gpudev-section">
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}

export function LeaseSection(props: Props & { reservation: IReservation }): JSX.Element {
  const { reservation, trans, model, lease } = props;
  const left = secondsLeft(reservation, model.now);
  const end = reservation.expires_at ? new Date(reservation.expires_at) : null;
  const begin = reservation.starts_at ? Date.parse(reservation.starts_at) : null;
  const nodes = reservation.placement.map(place => place.node).join(', ');
  const share =
    end && begin && left !== null ? 100 - (left * 100_000) / (end.getTime() - begin) : null;
  return (
    <Section title={reservation.name || trans.__('GPU lease')}>
      <p className="gpudev-left">{timeLeft(left, reservation.state, trans)}</p>
      {share === null ? null : (
        <progress max={100} value={share} aria-label={trans.__('Passed of the lease')} />
      )}
      <dl className="gpudev-facts">
        <dt>{trans.__('Until')}</dt>
        <dd>{end ? moment(end, model.now, trans.locale) : '–'}</dd>
        <dt>{trans.__('On')}</dt>
        <dd>
          {gpus(reservation.gpus, reservation.gpu_type, reservation.nodes, trans)}
          {reservation.simulated ? ` (${trans.__('simulated')})` : ''}
          {nodes ? `, ${nodes}` : ''}
        </dd>
        {lease.visitor.owner ? null : (
          <>
            <dt>{trans.__('Of')}</dt>
            <dd>{reservation.user}</dd>
          </>
        )}
      </dl>
      {left === null ? null : <Extend {...props} />}
    </Section>
  );
}

function Extend(props: Props & { reservation: IReservation }): JSX.Element {
  const { reservation, trans, model, act, lease } = props;
  const offer = reservation.extension;
  const amounts = choices(offer);
  const until = offer?.extendable_until ? new Date(offer.extendable_until) : null;
  const reason = offer?.limited_by;
  return (
    <div className="gpudev-extend">
      <p>
        {amounts.length && until
          ? trans.__('Can be extended until %1.', moment(until, model.now, trans.locale))
          : trans.__('Cannot be extended now.')}
        {reason ? ` ${said(reason, model.now, trans)}` : ''}
      </p>
      {lease.visitor.owner ? (
        <div className="gpudev-row" role="group" aria-label={trans.__('Extend by')}>
          {amounts.map(amount => (
            <button
              key={amount}
              type="button"
              className="gpudev-button"
              disabled={!mayAct(props)}
              aria-label={trans.__('Extend by %1', hours(amount, trans))}
              onClick={() => act(() => model.extend(amount), trans.__('The lease is extended.'))}
            >
              {`+${hours(amount, trans)}`}
            </button>
          ))}
        </div>
      ) : (
        <p className="gpudev-hint">
          {trans.__('Only %1 can extend the lease, invite people or give the GPUs back.', reservation.user)}
        </p>
      )}
    </div>
  );
}

export function Gpus({ lease, trans, model }: Props): JSX.Element | null {
  const figures = lease.gpu;
  if (!figures) {
    return null;
  }
  const average = mean(figures.history);
  const use = line(figures.history, point => point.used);
  const memory = line(figures.history, point => point.memory);
  const since = moment(new Date((figures.history[0]?.at ?? 0) * 1000), model.now, trans.locale);
  return (
    <Section title={trans.__('GPU use')}>
      {figures.simulated ? <p className="gpudev-hint">{trans.__('Simulated figures')}</p> : null}
      {figures.unavailable ? <p>{figures.unavailable}</p> : null}
      <ul className="gpudev-list">
        {figures.gpus.map((gpu, index) => (
          <Gpu key={index} gpu={gpu} index={index} trans={trans} />
        ))}
      </ul>
      {memory ? (
        <figure>
          <svg
            viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
            preserveAspectRatio="none"
            role="img"
            aria-label={
              average === null
                ? trans.__('Memory over the lease')
                : trans.__('Use over the lease, %1\u00a0% on average', average)
            }
          >
            <polyline className="gpudev-line-memory" points={memory} />
            {use ? <polyline className="gpudev-line-use" points={use} /> : null}
          </svg>
          <figcaption>
            {use ? <span className="gpudev-key-use">{trans.__('use')}</span> : null}{' '}
            <span className="gpudev-key-memory">{trans.__('memory')}</span>{' '}
            {average === null
              ? trans.__('since %1', since)
              : trans.__('since %1, %2\u00a0% on average', since, average)}
          </figcaption>
        </figure>
      ) : null}
    </Section>
  );
}

function Gpu({ gpu, index, trans }: { gpu: IGpuUse; index: number; trans: IWords }): JSX.Element {
  const told = gpu.memory_used !== null && gpu.memory_total !== null;
  return (
    <li>
      <span className="gpudev-name">{gpu.name || trans.__('GPU %1', index)}</span>
      <span>{gpu.used_percent === null ? trans.__('use not told') : `${gpu.used_percent} %`}</span>
      {gpu.used_percent === null ? null : (
        <meter
          min={0}
          max={100}
          value={gpu.used_percent}
          aria-label={trans.__('Use of %1', gpu.name)}
        />
      )}
      <span>
        {told ? trans.__('%1 of %2', size(gpu.memory_used, trans), size(gpu.memory_total, trans)) : ''}
      </span>
    </li>
  );
}

export function People(props: Props): JSX.Element {
  const { lease, trans, model, act } = props;
  const [name, setName] = useState('');
  const [role, setRole] = useState<Role>('use');
  const [length, setLength] = useState('');
  const may = mayAct(props);
  const { reservation } = lease;
  const now = model.now;
  const invite = (event: React.FormEvent): void => {
    event.preventDefault();
    const user = name.trim();
    act(async () => {
      await model.invite(user, role, length ? Number(length) : null);
      setName('');
      setLength('');
    }, trans.__('%1 is invited.', user));
  };
  return (
    <Section title={trans.__('People')}>
      {lease.collaborators.length ? (
        <ul className="gpudev-list">
          {lease.collaborators.map(one => (
            <li key={one.user}>
              <span className="gpudev-name">{one.user}</span>
              <span>
                {one.role === 'use' ? trans.__('works here') : trans.__('sees the lease')}
                {one.until && one.until !== reservation?.expires_at
                  ? ` ${trans.__('until %1', moment(new Date(one.until), now, trans.locale))}`
                  : ''}
              </span>
              {lease.visitor.owner ? (
                <button
                  type="button"
                  className="gpudev-button"
                  disabled={!may}
                  aria-label={trans.__('Remove %1', one.user)}
                  onClick={() =>
                    act(() => model.remove(one.user), trans.__('%1 is removed.', one.user))
                  }
                >
                  {trans.__('Remove')}
                </button>
              ) : null}
            </li>
          ))}
        </ul>
      ) : (
        <p className="gpudev-hint">{trans.__('Nobody else has been invited.')}</p>
      )}
      {lease.visitor.owner ? (
        <form className="gpudev-row" onSubmit={invite}>
          <input
            type="text"
            value={name}
            required
            autoComplete="off"
            spellCheck={false}
            aria-label={trans.__('Name at the Hub')}
            placeholder={trans.__('Name at the Hub')}
            onChange={event => setName(event.target.value)}
          />
          <select
            value={role}
            aria-label={trans.__('What they may do')}
            onChange={event => setRole(event.target.value as Role)}
          >
            <option value="use">{trans.__('works here')}</option>
            <option value="view">{trans.__('sees the lease')}</option>
          </select>
          <select
            value={length}
            aria-label={trans.__('For how long')}
            onChange={event => setLength(event.target.value)}
          >
            <option value="">{trans.__('as long as the lease')}</option>
            {ends(reservation, now).map(one => (
              <option key={one} value={one}>
                {trans.__('for %1', hours(one, trans))}
              </option>
            ))}
          </select>
          <button type="submit" className="gpudev-button" disabled={!may}>
            {trans.__('Invite')}
          </button>
        </form>
      ) : null}
    </Section>
  );
}

export function Ssh(props: Props): JSX.Element {
  const { lease, trans, act } = props;
  const { connect, config, ssh } = commands(lease);
  return (
    <Section title={trans.__('SSH and editors')}>
      <Copy {...{ text: connect, trans, act }} />
      <p className="gpudev-hint">
        {trans.__('Once on your machine, for ssh and editors:')} <code>{config}</code>
      </p>
      <Copy {...{ text: ssh, trans, act }} />
      <p className="gpudev-row">
        <a href={editorLink('vscode', lease)}>{trans.__('Open in VS Code')}</a>
        <a href={editorLink('cursor', lease)}>{trans.__('Open in Cursor')}</a>
      </p>
    </Section>
  );
}

/** Also where the Hub is reached without TLS: there browsers have no `navigator.clipboard`. */
async function copy(text: string): Promise<void> {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else {
    Clipboard.copyToSystem(text);
  }
}

function Copy({ text, trans, act }: Pick<IProps, 'trans' | 'act'> & { text: string }): JSX.Element {
  return (
    <div className="gpudev-copy">
      <code>{text}</code>
      <button
        type="button"
        className="gpudev-button"
        aria-label={trans.__('Copy %1', text)}
        onClick={() => act(() => copy(text), trans.__('Copied.'))}
      >
        {trans.__('Copy')}
      </button>
    </div>
  );
}

export function Disk(props: Props): JSX.Element {
  const { lease, trans, model, act } = props;
  const disk = lease.disk;
  if (!disk) {
    return (
      <Section title={trans.__('Disk')}>
        <p>{trans.__('There is no disk: what is kept here goes with the lease.')}</p>
      </Section>
    );
  }
  const last = lease.snapshots[0];
  const taking = lease.snapshots.some(one => one.state === 'taking');
  return (
    <Section title={trans.__('Disk %1', disk.name)}>
      <p>{trans.__('Size: %1', size(disk.size_bytes, trans))}</p>
      <p>
        {!last
          ? trans.__('No snapshot yet.')
          : last.state === 'taking'
            ? trans.__('A snapshot is being taken.')
            : last.state === 'failed'
              ? trans.__('The last snapshot failed, %1.', ago(new Date(last.taken_at), model.now, trans))
              : trans.__('Last snapshot: %1.', ago(new Date(last.taken_at), model.now, trans))}
      </p>
      {lease.visitor.owner ? (
        <button
          type="button"
          className="gpudev-button"
          disabled={!mayAct(props) || taking}
          onClick={() => act(() => model.snapshot(), trans.__('A snapshot is being taken.'))}
        >
          {trans.__('Take a snapshot now')}
        </button>
      ) : null}
    </Section>
  );
}

export function Release(props: Props): JSX.Element {
  const { lease, trans, act } = props;
  return (
    <section className="gpudev-section gpudev-row">
      {lease.visitor.owner ? (
        <button
          type="button"
          className="gpudev-button gpudev-danger"
          disabled={!mayAct(props)}
          onClick={() => act(props.confirmRelease, '')}
        >
          {trans.__('Give the GPUs back…')}
        </button>
      ) : null}
      {lease.pages_url ? (
        <a href={lease.pages_url} target="_blank" rel="noreferrer">
          {trans.__('All reservations')}
        </a>
      ) : null}
    </section>
  );
}

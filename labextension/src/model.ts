import { ServerConnection } from '@jupyterlab/services';
import { type ISignal, Signal } from '@lumino/signaling';

import { dismiss, isDismissed } from './dismissed';
import type { ILease, INotice, Role } from './lease';
import { Refused, request } from './requests';
import { nextTick, secondsLeft } from './time';
import type { ILeaseModel } from './tokens';
import type { IWords } from './words';

/** Milliseconds between two looks while the panel is to be seen: two a minute. */
const LOOK_EVERY = 30_000;
/** Milliseconds between two looks that a failing server causes. */
const TROUBLE_EVERY = 30_000;

/**
 * What this page knows of the lease. Nothing is asked for on a schedule, except while the panel can be
 * seen: news are pushed over the event bus, on which nothing is believed but that something is new.
 */
export class LeaseModel implements ILeaseModel {
  constructor(
    private readonly settings: ServerConnection.ISettings,
    private readonly trans: IWords
  ) {
    document.addEventListener('visibilitychange', () => this.seen());
    this.tick();
  }

  lease: ILease | null = null;
  trouble: string | null = null;
  /** Whether this page's session has ended, so that only a reload helps. */
  signedOut = false;

  get now(): Date {
    return new Date(Date.now() + this.skew);
  }

  /** Minutes before the end at which the page says so. */
  get warnings(): readonly number[] {
    return this._warnings;
  }

  set warnings(value: readonly number[]) {
    this._warnings = value;
    this._changed.emit();
    this.tick();
  }

  /** What has happened to the server, until somebody who looks from this browser has put it aside. */
  get notice(): INotice | null {
    const { id, notice } = this.lease?.reservation ?? {};
    return id && notice && !isDismissed(id, notice) ? notice : null;
  }

  dismiss(): void {
    const { id, notice } = this.lease?.reservation ?? {};
    if (id && notice) {
      dismiss(id, notice);
      this._changed.emit();
    }
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Whether the panel is on the screen. */
  set shown(value: boolean) {
    this._shown = value;
    this.seen();
  }

  /** News on the event bus. A page that nobody looks at remembers them for later. */
  hint(what: unknown): void {
    if (document.hidden && what !== 'save') {
      this.stale = true;
      return;
    }
    this.renew();
  }

  /** The server did not answer something else. */
  failing(): void {
    if (!document.hidden && Date.now() - this.lookedAt > TROUBLE_EVERY) {
      void this.refresh();
    }
  }

  refresh(): Promise<void> {
    this.reading ??= this.read().finally(() => {
      this.reading = null;
      if (this.again) {
        this.again = false;
        void this.refresh();
      }
    });
    return this.reading;
  }

  extend(hours: number): Promise<void> {
    return this.act('POST', 'extension', { hours });
  }

  invite(user: string, role: Role, hours: number | null): Promise<void> {
    const until = hours === null ? null : new Date(this.now.getTime() + hours * 3_600_000);
    return this.act('PUT', `collaborators/${encodeURIComponent(user)}`, { role, until });
  }

  remove(user: string): Promise<void> {
    return this.act('DELETE', `collaborators/${encodeURIComponent(user)}`);
  }

  snapshot(): Promise<void> {
    return this.act('POST', 'snapshot', {});
  }

  keep(): Promise<void> {
    return this.act('POST', 'keep', {});
  }

  release(): Promise<void> {
    return this.act('POST', 'release', {});
  }

  async saved(id: string, saved: number, unsaved: string[]): Promise<void> {
    await request<void>(this.settings, 'POST', 'saved', { id, saved, unsaved });
  }

  /** Because of news: the answer to a request that is on its way may be older than they are. */
  private renew(): void {
    this.again = this.reading !== null;
    void this.refresh();
  }

  private async act(method: string, path: string, body?: unknown): Promise<void> {
    try {
      this.take(await request<ILease>(this.settings, method, path, body));
    } catch (error) {
      throw new Error(this.inWords(error));
    }
  }

  private async read(): Promise<void> {
    this.lookedAt = Date.now();
    this.stale = false;
    try {
      this.take(await request<ILease>(this.settings, 'GET', 'lease'));
    } catch (error) {
      this.signedOut = error instanceof Refused && error.status === 403;
      this.trouble = this.inWords(error);
      this._changed.emit();
    }
  }

  private take(lease: ILease): void {
    this.lease = lease;
    this.signedOut = false;
    this.trouble = lease.away;
    this.skew = Date.parse(lease.now) - Date.now();
    this._changed.emit();
    this.tick();
  }

  private inWords(error: unknown): string {
    if (error instanceof Refused) {
      return error.message || this.trans.__('The server refused that (HTTP %1).', error.status);
    }
    return this.trans.__('This server does not answer at the moment.');
  }

  private seen(): void {
    if (document.hidden) {
      return;
    }
    const old = Date.now() - this.lookedAt > LOOK_EVERY;
    if (this.stale) {
      this.renew();
    } else if (this._shown && old) {
      void this.refresh();
    }
    this.tick();
  }

  /** The clock of this page: new words when they change, and a look from time to time. */
  private tick(): void {
    window.clearTimeout(this.timer);
    if (document.hidden) {
      return;
    }
    const left = secondsLeft(this.lease?.reservation ?? null, this.now);
    const untilWords = nextTick(left, this._warnings) * 1000;
    const untilLook = this.lookedAt + LOOK_EVERY - Date.now();
    const wait = this._shown ? Math.min(untilWords, Math.max(0, untilLook)) : untilWords;
    this.timer = window.setTimeout(() => {
      if (this._shown && Date.now() - this.lookedAt >= LOOK_EVERY) {
        void this.refresh();
      }
      this._changed.emit();
      this.tick();
    }, wait);
  }

  private _warnings: readonly number[] = [30, 15, 5];
  private _changed = new Signal<this, void>(this);
  private _shown = false;
  private stale = false;
  private again = false;
  private skew = 0;
  private lookedAt = 0;
  private timer = 0;
  private reading: Promise<void> | null = null;
}

// Whether a lease is used, in words.

import type { IIdleVerdict } from './lease';
import { moment, type IWords } from './words';

/** The verdict on idleness in one sentence. */
export function sentence(idle: IIdleVerdict, now: Date, trans: IWords): string {
  const at = (text: string | null): string => (text ? moment(new Date(text), now) : '');
  switch (idle.state) {
    case 'in_use':
      return idle.idle_at
        ? trans.__('In use. Without more use it counts as idle from %1.', at(idle.idle_at))
        : trans.__('In use.');
    case 'kept':
      return trans.__('Kept on request until %1.', at(idle.kept_until));
    case 'idle':
      return idle.release_at
        ? trans.__(
            'Nobody has used it since %1; it is given back at %2.',
            at(idle.since),
            at(idle.release_at)
          )
        : trans.__('Nobody has used it since %1.', at(idle.since));
    case 'unknown':
      return trans.__('Whether it is used is not known.');
  }
}

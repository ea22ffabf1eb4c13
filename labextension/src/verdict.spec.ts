import type { IIdleVerdict } from './lease';
import { sentence } from './verdict';
import type { IWords } from './words';

const trans: IWords = {
  __: (text, ...values) => values.reduce<string>((said, value, i) => said.replace(`%${i + 1}`, String(value)), text),
  _n: (one, many, count) => (count === 1 ? one : many)
};
const now = new Date(2026, 2, 1, 12, 0);
const clock = (hours: number, minutes: number): string => new Date(2026, 2, 1, hours, minutes).toISOString();

function idle(values: Partial<IIdleVerdict>): IIdleVerdict {
  return {
    state: 'in_use',
    since: null,
    reasons: [],
    action: 'release',
    idle_at: null,
    release_at: null,
    kept_until: null,
    keeps_left: 3,
    ...values
  };
}

describe('the verdict on idleness', () => {
  it.each([
    [idle({}), 'In use.'],
    [idle({ idle_at: clock(13, 5) }), 'In use. Without more use it counts as idle from 13:05.'],
    [idle({ state: 'kept', kept_until: clock(16, 0) }), 'Kept on request until 16:00.'],
    [
      idle({ state: 'idle', since: clock(10, 30), release_at: clock(12, 15) }),
      'Nobody has used it since 10:30; it is given back at 12:15.'
    ],
    [idle({ state: 'idle', since: clock(10, 30) }), 'Nobody has used it since 10:30.'],
    [idle({ state: 'unknown' }), 'Whether it is used is not known.']
  ])('is one sentence', (given, said) => {
    expect(sentence(given, now, trans)).toBe(said);
  });
});

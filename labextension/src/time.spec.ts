import type { IExtensionOffer, IReservation } from './lease';
import { choices, dueWarning, ends, nextTick, secondsLeft, urgency } from './time';

const NOW = new Date('2026-05-14T16:00:00Z');
const WARNINGS = [30, 15, 5];

function lease(minutesLeft: number, more: Partial<IReservation> = {}): IReservation {
  return {
    id: 'abc',
    name: 'run',
    user: 'ada',
    gpu_type: 't4',
    gpus: 1,
    nodes: 1,
    disk: null,
    state: 'active',
    reason: null,
    starts_at: '2026-05-14T12:00:00Z',
    expires_at: new Date(NOW.getTime() + minutesLeft * 60_000).toISOString(),
    placement: [],
    extension: null,
    idle: null,
    notice: null,
    simulated: false,
    ...more
  };
}

function offer(hours: number): IExtensionOffer {
  return { possible_hours: hours, extendable_until: null, limited_by: null };
}

describe('secondsLeft', () => {
  it('is what is left of a lease that runs', () => {
    expect(secondsLeft(lease(10), NOW)).toBe(600);
    expect(secondsLeft(lease(-10), NOW)).toBe(0);
  });

  it('is null where no lease runs', () => {
    expect(secondsLeft(null, NOW)).toBeNull();
    expect(secondsLeft(lease(10, { state: 'stopping' }), NOW)).toBeNull();
    expect(secondsLeft(lease(10, { expires_at: null }), NOW)).toBeNull();
  });
});

describe('urgency', () => {
  it.each([
    [null, 'none'],
    [0, 'over'],
    [5 * 60, 'urgent'],
    [5 * 60 + 1, 'soon'],
    [30 * 60, 'soon'],
    [30 * 60 + 1, 'calm']
  ])('of %s seconds is %s', (seconds, expected) => {
    expect(urgency(seconds, WARNINGS)).toBe(expected);
  });

  it('is calm for long where no warnings are wanted', () => {
    expect(urgency(20 * 60, [])).toBe('calm');
  });
});

describe('dueWarning', () => {
  it('is nothing before the first one', () => {
    expect(dueWarning(lease(31), NOW, WARNINGS, null)).toBeNull();
  });

  it('is the most urgent of those that have passed', () => {
    expect(dueWarning(lease(30), NOW, WARNINGS, null)).toBe(30);
    expect(dueWarning(lease(12), NOW, WARNINGS, null)).toBe(15);
    expect(dueWarning(lease(1), NOW, WARNINGS, null)).toBe(5);
  });

  it('comes once for one end, and again for a later one', () => {
    const soon = lease(12);
    const given = { end: soon.expires_at ?? '', minutes: 15 };
    expect(dueWarning(soon, NOW, WARNINGS, given)).toBeNull();
    expect(dueWarning(lease(4), NOW, WARNINGS, given)).toBe(5);
    expect(dueWarning(lease(14), NOW, WARNINGS, given)).toBe(15);
  });

  it('does not come with the start of a lease that is shorter', () => {
    const short = lease(10, { starts_at: NOW.toISOString() });
    expect(dueWarning(short, NOW, WARNINGS, null)).toBeNull();
  });

  it('is nothing when the lease is over', () => {
    expect(dueWarning(lease(0), NOW, WARNINGS, null)).toBeNull();
    expect(dueWarning(lease(3, { state: 'stopping' }), NOW, WARNINGS, null)).toBeNull();
  });
});

describe('choices', () => {
  it('are round amounts, and all that is possible', () => {
    expect(choices(offer(24))).toEqual([1, 4, 8, 24]);
    expect(choices(offer(8))).toEqual([1, 4, 8]);
    expect(choices(offer(3))).toEqual([0.5, 1, 2, 3]);
    expect(choices(offer(0.25))).toEqual([0.25]);
  });

  it('are none where nothing is possible or known', () => {
    expect(choices(offer(0))).toEqual([]);
    expect(choices(null)).toEqual([]);
  });
});

describe('ends', () => {
  it('are before the end of the lease', () => {
    expect(ends(lease(25 * 60), NOW)).toEqual([1, 4, 24]);
    expect(ends(lease(4 * 60), NOW)).toEqual([1]);
    expect(ends(lease(59), NOW)).toEqual([]);
    expect(ends(null, NOW)).toEqual([]);
  });
});

describe('nextTick', () => {
  it('is a second near the end, else the next full minute', () => {
    expect(nextTick(60, [])).toBe(1);
    expect(nextTick(3 * 60 + 20, [])).toBeCloseTo(20.05);
    expect(nextTick(null, [5])).toBe(60);
  });

  it('is no later than the next warning', () => {
    expect(nextTick(30 * 60 - 2, [29.9, 5])).toBeCloseTo(4.05);
    expect(nextTick(29.8 * 60, [29.9, 5])).toBeCloseTo(48.05);
    expect(nextTick(5 * 60 + 30, [29.9, 5])).toBeCloseTo(30.05);
  });
});

import { ago, duration, gpus, hours, type IWords, moment, size, told } from './words';

const trans: IWords = {
  __: (text, ...values) => text.replace(/%(\d)/g, (_, place) => String(values[Number(place) - 1])),
  _n: (one, many, count) => (count === 1 ? one : many)
};

// The same cases as tests/client/test_words.py: all surfaces say it alike.
describe('duration', () => {
  it.each([
    [-5, '0 s'],
    [40.9, '40 s'],
    [60, '1 min'],
    [59 * 60 + 59, '59 min'],
    [7800, '2 h 10 min'],
    [7200, '2 h'],
    [86400, '24 h'],
    [2 * 86400, '2 days'],
    [3 * 86400 + 4 * 3600, '3 days 4 h']
  ])('of %s seconds is %s', (seconds, expected) => {
    expect(duration(seconds, trans)).toBe(expected);
  });

  it('keeps hours as they are', () => {
    expect(hours(0.5, trans)).toBe('30 min');
    expect(hours(1.5, trans)).toBe('1 h 30 min');
  });
});

describe('moment', () => {
  const now = new Date('2026-05-14T12:00:00Z');

  it('is the clock of the zone in which somebody looks, today', () => {
    expect(moment(new Date('2026-05-14T16:40:00Z'), now, 'en-GB')).toBe('18:40');
  });

  it('names another day', () => {
    expect(moment(new Date('2026-05-14T23:30:00Z'), now, 'en-GB')).toMatch(/^Fri,? 15 May 01:30$/);
  });
});

it('shows the moments of a sentence in the zone of who reads it', () => {
  const now = new Date('2026-05-14T12:00:00Z');
  expect(told('Promised from 2026-05-14T16:40Z.', now, 'en-GB')).toBe('Promised from 18:40.');
  for (const other of ['', 'run-2026-05-14T16:40Z', '2026-99-99T16:40Z', '2026-05-14']) {
    expect(told(other, now, 'en-GB')).toBe(other);
  }
});

it('says how long ago something was', () => {
  const now = new Date('2026-05-14T12:00:00Z');
  expect(ago(new Date('2026-05-14T11:59:30Z'), now, trans)).toBe('just now');
  expect(ago(new Date('2026-05-14T11:50:00Z'), now, trans)).toBe('10 min ago');
  expect(ago(new Date('2026-05-14T12:00:30Z'), now, trans)).toBe('just now');
  expect(ago(new Date('2026-05-12T12:30:00Z'), now, trans)).toBe('47 h 30 min ago');
  expect(ago(new Date('2026-05-11T08:00:00Z'), now, trans)).toBe('3 days ago');
});

it('counts GPUs', () => {
  expect(gpus(2, 't4', 1, trans)).toBe('2 x t4');
  expect(gpus(16, 'h100', 2, trans)).toBe('16 x h100 on 2 nodes');
  expect(gpus(0, 'cpu-x86', 1, trans)).toBe('cpu-x86, no GPU');
});

describe('size', () => {
  it.each([
    [null, 'not measured yet'],
    [0, '0 bytes'],
    [312_000, '312 kB'],
    [999_960, '1 MB'],
    [1_500_000_000, '1.5 GB'],
    [17_179_869_184, '17 GB']
  ])('of %s is %s', (count, expected) => {
    expect(size(count, trans)).toBe(expected);
  });

  it('has the decimal sign of the language', () => {
    expect(size(1_500_000_000, { ...trans, locale: 'de-DE' })).toBe('1,5 GB');
  });
});

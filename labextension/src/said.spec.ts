import { said } from './said';
import { type IWords } from './words';

const NOW = new Date('2026-05-14T12:00:00Z');
const GERMAN: Record<string, string> = {
  'Your own “%1” has been promised %2 from %3.': 'Ab %3 ist %2 Ihrer eigenen „%1“ zugesagt.',
  'Nobody has used it since %1.': 'Seit %1 ungenutzt.',
  'Nobody has used it since %1; it is given back at %2.': 'Seit %1 ungenutzt, Rückgabe um %2.',
  '%1: last used %2 ago.': '%1: zuletzt vor %2.',
  '%1: last used %2 days %3 h ago.': '%1: zuletzt vor %2 Tagen %3 h.',
  'Kept on request, %1 more.': 'Noch %1 behalten.',
  '%1 used more memory than it has (%2), and was ended for it.': '%1 brauchte mehr als %2.',
  '%1 has ended with code %2.': '%1 endete mit %2.',
  'It was started again in its place.': 'Es läuft neu.',
  'It was started again in its place, %1 times so far.': 'Es läuft zum %1. Mal neu.',
  'The server': 'Der Server',
  'The worker on %1': 'Der Worker auf %1',
  Kernels: 'Kerne',
  '%1 days': '%1 Tage'
};

// As JupyterLab's bundles put values in.
const trans: IWords = {
  locale: 'de-DE',
  __: (text, ...values) =>
    (GERMAN[text] ?? text).replace(/%(\d)/g, (_, place) => String(values[Number(place) - 1])),
  _n: (one, many, count) => (count === 1 ? one : many)
};

describe('a sentence of the service', () => {
  it.each([
    [
      'Your own “Run %1 from x” has been promised 3 x t4 from 2026-05-14T16:40Z.',
      'Ab 18:40 ist 3 x t4 Ihrer eigenen „Run %1 from x“ zugesagt.'
    ],
    ['Nobody has used it since 2026-05-14T10:00Z.', 'Seit 12:00 ungenutzt.'],
    [
      'Nobody has used it since 2026-05-14T10:00Z; it is given back at 2026-05-14T12:30Z.',
      'Seit 12:00 ungenutzt, Rückgabe um 14:30.'
    ],
    ['Kernels: last used 2 days 3 h ago.', 'Kerne: zuletzt vor 2 Tagen 3 h.'],
    ['Kept on request, 3 days more.', 'Noch 3 Tage behalten.'],
    ['Your own “Kernels” has been promised 1 x t4 from x.', 'Ab x ist 1 x t4 Ihrer eigenen „Kernels“ zugesagt.'],
    ['GPUs: last used 5 min ago.', 'GPUs: zuletzt vor 5 min.'],
    [
      'The server used more memory than it has (4 GB), and was ended for it. It was started again in its place.',
      'Der Server brauchte mehr als 4 GB. Es läuft neu.'
    ],
    [
      'The worker on n2.x has ended with code 1. It was started again in its place, 2 times so far.',
      'Der Worker auf n2.x endete mit 1. Es läuft zum 2. Mal neu.'
    ],
    ['Nobody knows this. Nobody has used it since 2026-05-14T10:00Z.', 'Nobody knows this. Seit 12:00 ungenutzt.'],
    ['What is new, from 2026-05-14T16:40Z.', 'What is new, from 18:40.'],
    ['', '']
  ])('%s', (text, expected) => {
    expect(said(text, NOW, trans)).toBe(expected);
  });
});

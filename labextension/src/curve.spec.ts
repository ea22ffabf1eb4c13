import { HEIGHT, line, mean, WIDTH } from './curve';

const points = [
  { at: 100, used: 0, memory: 50 },
  { at: 150, used: 100, memory: 50 },
  { at: 200, used: 140, memory: -3 }
];

it('draws from the first sample to the last, inside the picture', () => {
  expect(line(points, point => point.used)).toBe(
    `0.0,${HEIGHT}.0 ${WIDTH / 2}.0,0.0 ${WIDTH}.0,0.0`
  );
  expect(line(points, point => point.memory)).toContain(`${WIDTH}.0,${HEIGHT}.0`);
});

it('draws nothing of one moment', () => {
  expect(line([], point => point.used)).toBe('');
  expect(line(points.slice(0, 1), point => point.used)).toBe('');
});

it('leaves out what the driver did not tell, and draws nothing where that is all', () => {
  const untold = points.map(point => ({ ...point, used: null }));
  expect(line(untold, point => point.used)).toBe('');
  expect(line(untold, point => point.memory)).not.toBe('');
  expect(mean(untold)).toBeNull();
  const some = [...points.slice(0, 2), { at: 200, used: null, memory: 1 }];
  expect(line(some, point => point.used)).toBe(`0.0,${HEIGHT}.0 ${WIDTH / 2}.0,0.0`);
  expect(mean(some)).toBe(50);
});

it('knows the mean', () => {
  expect(mean([])).toBeNull();
  expect(mean(points)).toBe(80);
});

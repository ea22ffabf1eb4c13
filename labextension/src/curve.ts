// The curve of GPU use over the lease, as the points of an SVG line. Pure.

import type { IPoint } from './lease';

export const WIDTH = 240;
export const HEIGHT = 48;

/**
 * Points of a polyline in WIDTH x HEIGHT for values in percent; "" where fewer than two have one.
 * Time goes from the first point to the last, with a value or without.
 */
export function line(points: readonly IPoint[], value: (point: IPoint) => number | null): string {
  const first = points[0];
  const last = points[points.length - 1];
  if (!first || !last || points.length < 2 || last.at <= first.at) {
    return '';
  }
  const span = last.at - first.at;
  const drawn: string[] = [];
  for (const point of points) {
    const percent = value(point);
    if (percent !== null) {
      const x = ((point.at - first.at) / span) * WIDTH;
      const y = HEIGHT - (Math.min(100, Math.max(0, percent)) / 100) * HEIGHT;
      drawn.push(`${x.toFixed(1)},${y.toFixed(1)}`);
    }
  }
  return drawn.length < 2 ? '' : drawn.join(' ');
}

/** The mean of the use over the whole lease, in percent; null where it was never told. */
export function mean(points: readonly IPoint[]): number | null {
  const told = points.map(point => point.used).filter(used => used !== null);
  return told.length ? Math.round(told.reduce((sum, used) => sum + used, 0) / told.length) : null;
}

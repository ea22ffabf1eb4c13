// The curve of GPU use over the lease, as the points of an SVG line. Pure.

import type { IPoint } from './lease';

export const WIDTH = 240;
export const HEIGHT = 48;

/** Points of a polyline in WIDTH x HEIGHT for values in percent; "" for fewer than two. */
export function line(points: readonly IPoint[], value: (point: IPoint) => number): string {
  const first = points[0];
  const last = points[points.length - 1];
  if (!first || !last || points.length < 2 || last.at <= first.at) {
    return '';
  }
  const span = last.at - first.at;
  return points
    .map(point => {
      const x = ((point.at - first.at) / span) * WIDTH;
      const y = HEIGHT - (Math.min(100, Math.max(0, value(point))) / 100) * HEIGHT;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(' ');
}

/** The mean of the use over the whole lease, in percent. */
export function mean(points: readonly IPoint[]): number | null {
  return points.length
    ? Math.round(points.reduce((sum, point) => sum + point.used, 0) / points.length)
    : null;
}

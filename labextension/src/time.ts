// What a lease's time means now: how much is left, whether it is short, which warning is due, by how
// much it can be extended. Pure functions.

import type { IExtensionOffer, IReservation } from './lease';

/** States in which a lease runs for its owner. */
const RUNNING = new Set(['preparing', 'active']);

export type Urgency = 'none' | 'calm' | 'soon' | 'urgent' | 'over';

/** Seconds that are left; null where no lease runs. */
export function secondsLeft(reservation: IReservation | null, now: Date): number | null {
  if (!reservation?.expires_at || !RUNNING.has(reservation.state)) {
    return null;
  }
  return Math.max(0, (Date.parse(reservation.expires_at) - now.getTime()) / 1000);
}

/** How the status item looks: `warnings` are minutes before the end. */
export function urgency(seconds: number | null, warnings: readonly number[]): Urgency {
  if (seconds === null) {
    return 'none';
  }
  if (seconds <= 0) {
    return 'over';
  }
  const minutes = seconds / 60;
  if (minutes <= Math.min(5, ...warnings)) {
    return 'urgent';
  }
  return warnings.length && minutes <= Math.max(...warnings) ? 'soon' : 'calm';
}

/** The warning that is due now and was not given for this end of the lease, in minutes; only the most
 * urgent of several. A lease that was never longer than a warning's time does not get that one. */
export function dueWarning(
  reservation: IReservation | null,
  now: Date,
  warnings: readonly number[],
  given: { end: string; minutes: number } | null
): number | null {
  const left = secondsLeft(reservation, now);
  if (left === null || left <= 0 || !reservation?.expires_at) {
    return null;
  }
  const length = reservation.starts_at
    ? (Date.parse(reservation.expires_at) - Date.parse(reservation.starts_at)) / 1000
    : Infinity;
  const passed = warnings.filter(minutes => minutes * 60 < length && left <= minutes * 60);
  if (!passed.length) {
    return null;
  }
  const urgent = Math.min(...passed);
  const known = given?.end === reservation.expires_at ? given.minutes : Infinity;
  return urgent < known ? urgent : null;
}

/** Seconds until something about the time left changes: its words, or a warning that becomes due;
 * `warnings` are minutes before the end. */
export function nextTick(seconds: number | null, warnings: readonly number[]): number {
  if (seconds === null || seconds <= 0) {
    return 60;
  }
  if (seconds <= 90) {
    return 1;
  }
  const ahead = warnings.map(minutes => seconds - minutes * 60).filter(wait => wait >= 0);
  return Math.max(1, Math.min(seconds % 60, ...ahead)) + 0.05;
}

/** The amounts of hours that are offered: round ones that are possible, and all that is possible. */
export function choices(offer: IExtensionOffer | null): number[] {
  const possible = offer?.possible_hours ?? 0;
  if (possible <= 0) {
    return [];
  }
  const round = (possible < 4 ? [0.5, 1, 2] : [1, 4, 8]).filter(step => step <= possible);
  // What is left over below a minute is not worth a button.
  return possible - (round[round.length - 1] ?? 0) > 1 / 60 ? [...round, possible] : round;
}

/** Hours from now after which an invitation can end before the lease does. */
export function ends(reservation: IReservation | null, now: Date): number[] {
  const left = secondsLeft(reservation, now) ?? 0;
  return [1, 4, 24].filter(hours => hours * 3600 < left);
}

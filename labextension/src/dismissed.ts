// Which notices somebody has put aside in this browser: each person for themselves, and for later visits too.

import type { INotice } from './lease';

/** What was put aside on this page, also where the browser keeps nothing. */
const here = new Map<string, string>();

export function dismiss(reservation: string, notice: INotice): void {
  here.set(reservation, notice.at);
  try {
    window.localStorage.setItem(key(reservation), notice.at);
  } catch {
    // It comes again with the next page.
  }
}

export function isDismissed(reservation: string, notice: INotice): boolean {
  return (here.get(reservation) ?? kept(reservation)) === notice.at;
}

function kept(reservation: string): string | null {
  try {
    return window.localStorage.getItem(key(reservation));
  } catch {
    return null;
  }
}

function key(reservation: string): string {
  return `gpudev-lab:dismissed:${reservation}`;
}

// Times, durations and sizes as people read them, in the words of gpudev_client/words.py. Pure: `now`
// is given; the zone is the browser's.

/** What of JupyterLab's translation bundle is used here. */
export interface IWords {
  /** The language that JupyterLab was set to, for dates and numbers; without one, the browser's. */
  locale?: string | undefined;
  __(text: string, ...values: unknown[]): string;
  _n(one: string, many: string, count: number, ...values: unknown[]): string;
}

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A length of time, rounded down: "2 h 10 min", "5 min", "40 s", "3 days 4 h". */
export function duration(seconds: number, trans: IWords): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) {
    return trans.__('%1 s', whole);
  }
  if (whole < HOUR) {
    return trans.__('%1 min', Math.floor(whole / MINUTE));
  }
  if (whole < 2 * DAY) {
    const hours = Math.floor(whole / HOUR);
    const minutes = Math.floor((whole % HOUR) / MINUTE);
    return minutes ? trans.__('%1 h %2 min', hours, minutes) : trans.__('%1 h', hours);
  }
  const days = Math.floor(whole / DAY);
  const hours = Math.floor((whole % DAY) / HOUR);
  return hours ? trans.__('%1 days %2 h', days, hours) : trans.__('%1 days', days);
}

/** A number of hours: 0.5 is "30 min". */
export function hours(value: number, trans: IWords): string {
  return duration(Math.round(value * HOUR), trans);
}

/** A point in time: "18:40" today, "Tue 14 May 18:40" on another day. */
export function moment(at: Date, now: Date, locale?: string): string {
  const clock = at.toLocaleTimeString(locale, { hour: '2-digit', minute: '2-digit', hour12: false });
  if (at.toDateString() === now.toDateString()) {
    return clock;
  }
  const day = at.toLocaleDateString(locale, { weekday: 'short', day: 'numeric', month: 'short' });
  return `${day} ${clock}`;
}

/** A sentence of the service with the moments that it has marked, in the browser's zone. */
export function told(text: string, now: Date, locale?: string): string {
  return text.replace(/(?<![\w:.-])\d{4}-\d\d-\d\dT\d\d:\d\dZ(?!\w)/g, mark => {
    const at = new Date(mark);
    return Number.isNaN(at.getTime()) ? mark : moment(at, now, locale);
  });
}

/** How long ago: "2 h 10 min ago", "3 days ago", "just now". */
export function ago(at: Date, now: Date, trans: IWords): string {
  const seconds = (now.getTime() - at.getTime()) / 1000;
  if (seconds < MINUTE) {
    return trans.__('just now');
  }
  // A sentence of its own: in many languages it is another form of "days".
  return seconds < 2 * DAY
    ? trans.__('%1 ago', duration(seconds, trans))
    : trans.__('%1 days ago', Math.floor(seconds / DAY));
}

/** GPUs of one type: "2 x t4", "cpu-x86, no GPU". */
export function gpus(count: number, type: string, nodes: number, trans: IWords): string {
  if (count === 0) {
    return trans.__('%1, no GPU', type);
  }
  return nodes > 1
    ? trans.__('%1 x %2 on %3 nodes', count, type, nodes)
    : trans.__('%1 x %2', count, type);
}

/** A number of bytes, decimal as disks are sold: "1.5 GB". */
export function size(count: number | null, trans: IWords): string {
  if (count === null) {
    return trans.__('not measured yet');
  }
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = count;
  let unit = 0;
  while (unit + 1 < units.length && Math.round(value * 10) / 10 >= 1000) {
    value /= 1000;
    unit += 1;
  }
  if (!unit) {
    return trans.__('%1 bytes', value);
  }
  const digits = value < 9.95 ? 1 : 0;
  return `${value.toLocaleString(trans.locale ?? 'en', { maximumFractionDigits: digits })} ${units[unit]}`;
}

/* Times in words for the viewer's zone: the same words as gpudev_client/words.py has, which a test
   compares. `at` and `now` are milliseconds since 1970. */
"use strict";
window.gpudevWords = (() => {
  const MINUTE = 60, HOUR = 3600, DAY = 86400, DAYS_FROM = 2 * DAY;
  const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

  const pair = (big, bigUnit, small, smallUnit) =>
    small ? `${big} ${bigUnit} ${small} ${smallUnit}` : `${big} ${bigUnit}`;

  const duration = (seconds) => {
    const whole = Math.max(0, Math.trunc(seconds));
    if (whole < MINUTE) return `${whole} s`;
    if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min`;
    if (whole < DAYS_FROM) {
      return pair(Math.floor(whole / HOUR), "h", Math.floor((whole % HOUR) / MINUTE), "min");
    }
    return pair(Math.floor(whole / DAY), "days", Math.floor((whole % DAY) / HOUR), "h");
  };

  const two = (number) => String(number).padStart(2, "0");
  const clockOf = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;

  /* One hour of autumn comes twice: the same wall clock, an hour before or after. */
  const twice = (date) => [-HOUR, HOUR].some((shift) => {
    const other = new Date(date.getTime() + shift * 1000);
    return clockOf(other) === clockOf(date);
  });

  const zoneName = (date) => {
    const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(date);
    return parts.find((part) => part.type === "timeZoneName").value;
  };

  const parts = (at, now) => {
    const date = new Date(at), today = new Date(now);
    const clock = twice(date) ? `${clockOf(date)} ${zoneName(date)}` : clockOf(date);
    const day = (d) => Date.UTC(d.getFullYear(), d.getMonth(), d.getDate()) / (DAY * 1000);
    const days = day(date) - day(today);
    if (days === 0) return ["", clock];
    if (days === 1) return ["tomorrow", clock];
    if (days === -1) return ["yesterday", clock];
    const name = `${WEEKDAYS[date.getDay()]} ${date.getDate()} ${MONTHS[date.getMonth()]}`;
    return [date.getFullYear() === today.getFullYear() ? name : `${name} ${date.getFullYear()}`, clock];
  };

  const moment = (at, now) => {
    const [day, clock] = parts(at, now);
    return day ? `${day} ${clock}` : clock;
  };

  const atMoment = (at, now) => {
    const [day, clock] = parts(at, now);
    if (!day) return `at ${clock}`;
    return day === "tomorrow" || day === "yesterday" ? `${day} at ${clock}` : `on ${day} at ${clock}`;
  };

  const left = (at, now) => {
    const seconds = (at - now) / 1000;
    if (seconds <= 0) return `ended ${atMoment(at, now)}`;
    return `${duration(seconds)} left, until ${moment(at, now)}`;
  };

  /* Rounded up: a promise of 18:40:30 shown as 18:40 would be one that nobody made. */
  const start = (at, now) => {
    const seconds = (at - now) / 1000;
    if (seconds <= 0) return "starts any moment";
    const shown = Math.ceil(at / (MINUTE * 1000)) * MINUTE * 1000;
    return `starts ${atMoment(shown, now)} at the latest (in ${duration(Math.ceil(seconds / MINUTE) * MINUTE)})`;
  };

  const ago = (at, now) => {
    const seconds = (now - at) / 1000;
    return seconds < MINUTE ? "just now" : `${duration(seconds)} ago`;
  };

  /* A sentence with the moments that the service has marked. */
  const told = (text, now) =>
    text.replace(/(?<![\w:.-])\d{4}-\d\d-\d\dT\d\d:\d\dZ(?!\w)/g, (mark) =>
      Number.isNaN(Date.parse(mark)) ? mark : moment(Date.parse(mark), now));

  return { told, duration, left, start, moment, at: atMoment, ago };
})();

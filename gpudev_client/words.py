"""Times, durations, counts and sizes as people read them; the one place for every surface.

Pure: `now` and the viewer's `zone` are given. `zone=None` is the zone of the machine it runs on,
which is right for a terminal; a page that does not know its viewer's zone gives UTC and asks for
`show_zone`. Rounding never promises too much: what is left is rounded down, a start "at the latest"
is rounded up. Standard library only, so that the command line can use it at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
#: From here on days are easier to read than hours; below it a lease of 24 h stays "24 h".
_DAYS_FROM = 2 * _DAY

# Not strftime's: that changes with the process's locale, and the sentences around it do not.
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

#: A moment as the service writes it into a sentence; see `mark`.
_MARK = re.compile(r"(?<![\w:.-])\d{4}-\d\d-\d\dT\d\d:\d\dZ(?!\w)")

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def duration(seconds: float) -> str:
    """A length of time, rounded down: "2 h 10 min", "5 min", "40 s", "3 days 4 h".

    Negative lengths read as "0 s".
    """
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAYS_FROM:
        return _pair(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _pair(whole // _DAY, "days", whole % _DAY // _HOUR, "h")


def hours(value: float) -> str:
    """A number of hours as a length of time: 0.5 is "30 min", 24 is "24 h"."""
    return duration(round(value * _HOUR))


def moment(
    at: datetime, now: datetime, zone: tzinfo | None = None, *, show_zone: bool = False
) -> str:
    """A point in time: "18:40" today, else "tomorrow 18:40", "Tue 14 May 18:40", and with the
    year where it is another one."""
    day, clock = _parts(at, now, zone, show_zone)
    return f"{day} {clock}" if day else clock


def at_moment(
    at: datetime, now: datetime, zone: tzinfo | None = None, *, show_zone: bool = False
) -> str:
    """A point in time with its prepositions: "at 18:40", "tomorrow at 18:40", "on Tue 14 May at
    18:40"."""
    day, clock = _parts(at, now, zone, show_zone)
    if not day:
        return f"at {clock}"
    return f"{day} at {clock}" if day[0].islower() else f"on {day} at {clock}"


def time_left(
    expires_at: datetime, now: datetime, zone: tzinfo | None = None, *, show_zone: bool = False
) -> str:
    """What is left of a lease: "2 h 10 min left, until 18:40"; "ended at 18:40" when it is over."""
    seconds = _seconds(expires_at, now)
    if seconds <= 0:
        return f"ended {at_moment(expires_at, now, zone, show_zone=show_zone)}"
    return f"{duration(seconds)} left, until {moment(expires_at, now, zone, show_zone=show_zone)}"


def start_in_words(
    promised_start: datetime | None,
    now: datetime,
    zone: tzinfo | None = None,
    *,
    show_zone: bool = False,
) -> str:
    """A promised start: "starts at 18:40 at the latest (in 2 h 10 min)".

    None says that there is no promise yet; a promise that is due says that it starts now.
    """
    if promised_start is None:
        return "no start time yet"
    seconds = _seconds(promised_start, now)
    if seconds <= 0:
        return "starts any moment"
    shown = rounded_up(promised_start)
    minutes = -(-seconds // _MINUTE)
    length = duration(minutes * _MINUTE)
    return f"starts {at_moment(shown, now, zone, show_zone=show_zone)} at the latest (in {length})"


def latest(
    at: datetime, now: datetime, zone: tzinfo | None = None, *, show_zone: bool = False
) -> str:
    """An upper bound in time, such as a promised start: like `moment`, but rounded up."""
    return moment(rounded_up(at), now, zone, show_zone=show_zone)


def mark(at: datetime) -> str:
    """A moment for a sentence that is kept or sent: ISO 8601 in UTC, to the minute and rounded up.

    Who writes the sentence does not know its reader's zone. Programs read the moment as it is;
    whoever shows the sentence gives it to `told`, or to `pieces` where times have a form of their
    own.
    """
    return f"{rounded_up(at):%Y-%m-%dT%H:%MZ}"


def pieces(text: str) -> list[str | datetime]:
    """A sentence in parts: what is said, and the moments that `mark` has put in between."""
    found: list[str | datetime] = []
    end = 0
    for marked in _MARK.finditer(text):
        try:
            at = datetime.fromisoformat(marked[0])
        except ValueError:  # a person's own words that only look like one
            continue
        found += [text[end : marked.start()], at]
        end = marked.end()
    return [part for part in [*found, text[end:]] if part]


def told(text: str, now: datetime, zone: tzinfo | None = None, *, show_zone: bool = False) -> str:
    """A sentence with its moments in the viewer's zone."""
    return "".join(
        part if isinstance(part, str) else moment(part, now, zone, show_zone=show_zone)
        for part in pieces(text)
    )


def ago(at: datetime, now: datetime) -> str:
    """How long ago: "2 h 10 min ago"; "just now" within a minute (also for a clock ahead)."""
    seconds = _seconds(now, at)
    return "just now" if seconds < _MINUTE else f"{duration(seconds)} ago"


def gpus(count: int, label: str, nodes: int = 1) -> str:
    """GPUs of one type: "2 x t4", "16 x h100 on 2 nodes", "cpu-x86, no GPU"."""
    if count == 0:
        return f"{label}, no GPU"
    where = f" on {nodes} nodes" if nodes > 1 else ""
    return f"{count} x {label}{where}"


def labels(of_nodes: Mapping[str, str]) -> str:
    """Labels of nodes as they are asked for: "zone=a, gpu.memory=81559"."""
    return ", ".join(f"{key}={value}" for key, value in sorted(of_nodes.items()))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 disk", "3 disks", "no disks"."""
    many = plural or f"{noun}s"
    if number == 0:
        return f"no {many}"
    return f"{number} {noun if number == 1 else many}"


def size(count: int | None) -> str:
    """A number of bytes, decimal as disks are sold: "1.5 GB", "312 kB", "0 bytes"; None is "not
    measured yet"."""
    if count is None:
        return "not measured yet"
    value = float(count)
    unit = 0
    # 999,500 bytes would round to "1000 kB".
    while unit + 1 < len(_SIZES) and round(value, 1 if 0 < value < 10 and unit else 0) >= 1000:  # noqa: PLR2004
        value /= 1000
        unit += 1
    if unit == 0:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    digits = f"{value:.1f}".removesuffix(".0") if value < 9.95 else f"{value:.0f}"  # noqa: PLR2004
    return f"{digits} {_SIZES[unit]}"


def unseen(trouble: str | None) -> str:
    """What it means that the fleet cannot be seen, after why (`Cluster.trouble`)."""
    return (
        f"{trouble or 'The fleet cannot be seen.'} What is shown is how it was. Until it is seen "
        "again nothing new starts; leases that run go on, and end on time."
    )


def queue_place(position: int | None) -> str:
    """A place in the queue: 1 is "next in the queue", 4 is "4th in the queue"; nobody ahead and no
    wait (0) or no place (None) is "not in the queue"."""
    if not position or position < 0:
        return "not in the queue"
    return "next in the queue" if position == 1 else f"{_ordinal(position)} in the queue"


#: The steps of a server's start, as they are reported, and what each has brought.
STEPS = {
    "begin": "asked for",
    "node": "a node has taken it",
    "volume": "disk and network attached",
    "image": "image there",
    "container": "container started",
    "process": "process started",
    "workers": "all nodes run",
    "lab": "JupyterLab answers",
}


def steps(done: Sequence[tuple[str, datetime]]) -> str:
    """A start's steps in one sentence, each with the time that it took: "The start took 12 s:
    a node has taken it (1 s), image there (9 s), JupyterLab answers (2 s)."."""
    found = in_order(done)
    parts = [f"{STEPS.get(step, step)} ({duration(_seconds(to, at))})" for step, at, to in found]
    took = duration(_seconds(found[-1][2], found[0][1])) if found else "0 s"
    return f"The start took {took}: {', '.join(parts)}." if parts else f"The start took {took}."


def in_order(done: Sequence[tuple[str, datetime]]) -> list[tuple[str, datetime, datetime]]:
    """Each step of a start with its begin, which is the end of the one before, and its end. Their
    times are of several clocks, some to the second only, so none ends before it has begun."""
    found, before = [], done[0][1] if done else None
    for step, at in done[1:]:
        assert before is not None  # noqa: S101 - set with the first
        found.append((step, before, max(before, at)))
        before = max(before, at)
    return found


def rounded_up(at: datetime) -> datetime:
    """The next whole minute: a promise of 18:40:30 shown as 18:40 would be one that nobody made."""
    whole = _aware(at).astimezone(UTC)
    rest = whole.second + whole.microsecond / 1e6
    return whole + timedelta(seconds=_MINUTE - rest) if rest else whole


def _pair(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big} {big_unit} {small} {small_unit}" if small else f"{big} {big_unit}"


def _ordinal(number: int) -> str:
    teens = 11 <= number % 100 <= 13  # noqa: PLR2004
    ending = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _seconds(later: datetime, earlier: datetime) -> float:
    # Through UTC: subtracting two times of one zone would miss a change of its clocks.
    return (_aware(later).astimezone(UTC) - _aware(earlier).astimezone(UTC)).total_seconds()


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time needs its time zone")
    return at


def _parts(at: datetime, now: datetime, zone: tzinfo | None, show_zone: bool) -> tuple[str, str]:
    local = _aware(at).astimezone(zone)
    today = _aware(now).astimezone(zone).date()
    clock = f"{local:%H:%M}"
    # One hour of autumn comes twice; without the zone's name nobody could tell which is meant.
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    name = local.tzname()
    if name and (show_zone or twice):
        clock = f"{clock} {name}"
    days = (local.date() - today).days
    if days == 0:
        return "", clock
    if days in (1, -1):
        return ("tomorrow" if days == 1 else "yesterday"), clock
    day = f"{_WEEKDAYS[local.weekday()]} {local.day} {_MONTHS[local.month - 1]}"
    return (day if local.year == today.year else f"{day} {local.year}"), clock

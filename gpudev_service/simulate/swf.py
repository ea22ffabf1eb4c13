"""The Standard Workload Format, version 2.2, read and written.

One job a line, in 18 fields separated by blanks; -1 is "not known". Lines that begin with `;` are
comments, and those at the top of the form `; Label: value` are the header. `Partition: 1 h100` and
`Queue: 1 day` name what the fields have numbers for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .trace import Job, Status, Trace, TraceError

#: The fields in their order; those in `_SECONDS` may have decimals.
FIELDS = (
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user",
    "group",
    "executable",
    "queue",
    "partition",
    "preceding job",
    "think time",
)
_SECONDS = frozenset(
    {"submit time", "wait time", "run time", "average CPU time", "requested time", "think time"}
)
#: Often kept with decimals, and not used here.
_LOOSE = frozenset({"used memory", "requested memory"})
_LABEL = re.compile(r";\s*([A-Za-z][A-Za-z ]*?)\s*:\s*(.*?)\s*$")
_NAMED = re.compile(r"(\d+)[\s:,]+(\S+)")
#: More is no trace of one fleet, and would only fill the memory.
MOST_JOBS = 5_000_000
_LARGEST = 1e15
_LONGEST_LINE = 4096


def read_file(path: Path) -> Trace:
    """The trace in a file.

    Raises:
        TraceError: the file cannot be read, or a line is not of the format.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return read(lines, path.name)
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}.") from None


def read(lines: Iterable[str], name: str) -> Trace:
    """The trace in these lines, with its jobs by submission.

    Raises:
        TraceError: with the number of the first line that is wrong, and what is accepted there.
    """
    header: dict[str, str] = {}
    names: dict[str, dict[int, str]] = {"Partition": {}, "Queue": {}}
    jobs: list[Job] = []
    seen: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(";"):
            _note(text, header, names)
        elif text:
            job = _job(text, f"{name}, line {number}", names)
            if job.number in seen:
                raise TraceError(
                    f"{name}, line {number}: job {job.number} stands in line {seen[job.number]}"
                    " already. Each job has a number of its own."
                )
            seen[job.number] = number
            jobs.append(job)
            if len(jobs) > MOST_JOBS:
                raise TraceError(f"{name}: has more than {MOST_JOBS} jobs. Cut it.")
    if not jobs:
        raise TraceError(
            f"{name}: has no job. A job is a line of {len(FIELDS)} numbers, as the Standard "
            "Workload Format has it."
        )
    jobs.sort(key=lambda job: (job.submit_s, job.number))
    return Trace(name, tuple(jobs), header)


def _note(text: str, header: dict[str, str], names: dict[str, dict[int, str]]) -> None:
    """A comment: perhaps one line of the header."""
    found = _LABEL.match(text)
    if found is None:
        return
    label, value = found.groups()
    header.setdefault(label, value)
    named = _NAMED.match(value)
    if label in names and named is not None:
        names[label][int(named[1])] = named[2]


def _job(text: str, place: str, names: dict[str, dict[int, str]]) -> Job:
    words = text.split() if len(text) <= _LONGEST_LINE else []
    if len(words) != len(FIELDS):
        found = f"{len(words)} fields" if words else "a line longer than any job's"
        raise TraceError(f"{place}: {len(FIELDS)} fields make a job, and this has {found}.")
    values = {
        label: _number(word, at, place) for at, (label, word) in enumerate(_labelled(words), 1)
    }
    numbers = {label: None if value is None else round(value) for label, value in values.items()}
    job, submit = numbers["job number"], values["submit time"]
    if job is None or submit is None:
        field = 1 if job is None else 2
        raise TraceError(
            f"{place}: field {field} ({FIELDS[field - 1]}) has to be known, 0 or more."
        )
    status = numbers["status"]
    if status is not None and status not in set(Status):
        raise TraceError(
            f"{place}: field 11 (status) is {status}. Accepted: "
            f"{', '.join(str(int(one)) for one in Status)}."
        )
    # Zero processors are as unknown as -1: some logs have them for jobs that never ran.
    gpus = numbers["requested processors"] or numbers["allocated processors"] or None
    return Job(
        number=job,
        submit_s=submit,
        run_s=values["run time"],
        gpus=gpus,
        requested_s=values["requested time"] or None,
        wait_s=values["wait time"],
        status=Status.UNKNOWN if status is None else Status(status),
        user=_name("user", numbers["user"]),
        groups=() if numbers["group"] is None else (str(numbers["group"]),),
        queue=_named(names["Queue"], numbers["queue"]),
        partition=_named(names["Partition"], numbers["partition"]),
    )


def _labelled(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(FIELDS, words, strict=True)


def _number(word: str, at: int, place: str) -> float | None:
    """A field's value; None for -1."""
    label = FIELDS[at - 1]
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    whole = label not in _SECONDS | _LOOSE
    if not math.isfinite(value) or abs(value) > _LARGEST or (whole and not value.is_integer()):
        kind = "a whole number" if whole else "a number"
        raise TraceError(
            f"{place}: field {at} ({label}) is {word[:40]!r}. Accepted: {kind}, or -1."
        )
    if value == -1:
        return None
    if value < 0:
        raise TraceError(
            f"{place}: field {at} ({label}) is {word[:40]}. Accepted: 0 or more, or -1 where it is"
            " not known."
        )
    return value


def _name(kind: str, number: int | None) -> str:
    return f"{kind} {number}" if number is not None else ""


def _named(names: dict[int, str], number: int | None) -> str | None:
    if number is None:
        return None
    return names.get(number, str(number))


def write(trace: Trace) -> Iterator[str]:
    """The trace's lines. Users, groups, queues and partitions become numbers; only the latter two
    keep their names, in the header: so a trace can be given away."""
    yield "; Version: 2.2\n"
    for label, value in trace.header.items():
        if label not in {"Version", "Partition", "Queue", "MaxJobs"}:
            yield f"; {label}: {value}\n"
    yield f"; MaxJobs: {len(trace.jobs)}\n"
    users, groups = _Numbers(), _Numbers()
    partitions, queues = _Numbers(), _Numbers()
    lines = [_line(job, users, groups, queues, partitions) for job in trace.jobs]
    yield from (f"; Partition: {number} {name}\n" for name, number in partitions.of.items())
    yield from (f"; Queue: {number} {name}\n" for name, number in queues.of.items())
    yield from lines


class _Numbers:
    """Numbers for names, in the order in which they come."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def __call__(self, name: str | None) -> int:
        return -1 if not name else self.of.setdefault(name, len(self.of) + 1)


def _line(
    job: Job, users: _Numbers, groups: _Numbers, queues: _Numbers, partitions: _Numbers
) -> str:
    gpus = _shown(job.gpus)
    words = [
        str(job.number),
        _shown(job.submit_s),
        _shown(job.wait_s),
        _shown(job.run_s),
        gpus,
        "-1",
        "-1",
        gpus,
        _shown(job.requested_s),
        "-1",
        str(int(job.status)),
        str(users(job.user)),
        str(groups(job.groups[0] if job.groups else None)),
        "-1",
        str(queues(job.queue)),
        str(partitions(job.partition)),
        "-1",
        "-1",
    ]
    return " ".join(words) + "\n"


def _shown(value: float | None) -> str:
    if value is None:
        return "-1"
    return str(int(value)) if float(value).is_integer() else repr(float(value))

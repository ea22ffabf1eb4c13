"""Jobs as a trace tells them, wherever it comes from. Times are seconds since the trace began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class TraceError(ValueError):
    """A trace cannot be used; the message says where, and what would be accepted."""


class Status(IntEnum):
    """How a job ended, with the numbers of the Standard Workload Format."""

    UNKNOWN = -1
    FAILED = 0
    COMPLETED = 1
    PARTIAL = 2  # a part of a job that another line tells as a whole; more follow
    LAST_PARTIAL = 3
    LAST_PARTIAL_FAILED = 4
    CANCELLED = 5


#: Lines with these repeat, in parts, what another line says of the whole job.
PARTS = frozenset({Status.PARTIAL, Status.LAST_PARTIAL, Status.LAST_PARTIAL_FAILED})


@dataclass(frozen=True, slots=True)
class Job:
    """One job. What a trace does not know is None.

    `run_s` is how long it ran, `requested_s` how long it had asked for, `gpus` how many GPUs (or
    processors) it had asked for. `partition` is the GPU type, where the trace names one.
    `booked_s` is the start that a booking asked for.
    """

    number: int
    submit_s: float
    run_s: float | None
    gpus: int | None
    requested_s: float | None = None
    wait_s: float | None = None
    status: Status = Status.UNKNOWN
    user: str = ""
    groups: tuple[str, ...] = ()
    queue: str | None = None
    partition: str | None = None
    booked_s: float | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs by submission. `header` is what the trace says about itself."""

    name: str
    jobs: tuple[Job, ...]
    header: Mapping[str, str] = field(default_factory=dict)

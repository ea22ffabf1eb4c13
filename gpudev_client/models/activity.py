"""Whether a lease is used: what its server sees, and the verdict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from .base import Answer, Note, Request

#: What is looked at, each with its own signs of use.
SourceName = Literal["kernels", "terminals", "ssh", "programs", "gpu"]

#: `kept`: nobody uses it, and somebody has said "keep it". `unknown`: the server does not report.
IdleState = Literal["in_use", "idle", "kept", "unknown"]


class ActivitySource(Request):
    """One kind of use. `busy` means at the moment of the report, `last_at` is the last sign of it
    (None: none since the server is up), `detail` is a sentence about what is busy."""

    source: SourceName
    busy: bool = False
    last_at: AwareDatetime | None = None
    detail: Note | None = None


class ActivityReport(Request):
    """What a reservation's server has seen. A source that cannot be seen there is left out."""

    sources: Annotated[list[ActivitySource], Field(max_length=8)]


class IdleVerdict(Answer):
    """How a lease stands: `summary` says it in one sentence (with moments as in histories),
    `reasons` source by source.

    `idle_at` is when it will count as idle if nothing happens before, `release_at` when an idle one
    is given back (None where policy does not do that). "Keep it" holds until `kept_until`, and can
    be said `keeps_left` times more before the lease is used again.
    """

    state: IdleState
    summary: Annotated[str, StringConstraints(max_length=1_000)]
    since: AwareDatetime | None = Field(description="The last use of a lease that is idle.")
    reasons: list[Annotated[str, StringConstraints(max_length=1_000)]]
    action: Literal["nothing", "warn", "release"]
    idle_at: AwareDatetime | None
    release_at: AwareDatetime | None
    kept_until: AwareDatetime | None
    keeps_left: int

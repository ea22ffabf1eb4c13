"""Whether somebody uses a lease: one verdict from kernels, terminals, SSH sessions and GPUs.

Pure: what was seen, the rule, and `now` go in; the verdict with its reasons comes out. It is
generous on purpose. Whatever is busy at the moment it was looked at counts as use, with a browser
open or not; what nobody has reported on for a while is not known, and what is not known is never
idle. The lease's own beginning and every "keep it" count as signs of life.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpudev_client import words
from gpudev_client.models import ActivitySource, IdleState, IdleVerdict

from .settings import IdleAction, IdleRule

#: A report is about now for so long; a server that has not reported since then is not judged.
FRESH = timedelta(minutes=12)

_NAMES = {
    "kernels": "kernels",
    "terminals": "terminals",
    "ssh": "SSH sessions",
    "programs": "programs",
    "gpu": "GPUs",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one lease.

    Attributes:
        active_at: when its server was ready first.
        reported_at: when the server last said how things are; None if it never did.
        sources: what it said.
        kept_at: when somebody last said "keep it", with the rule's length from then on.
        keeps: how many times they said so since the last use that was seen.
        warned_at: when the warning about idleness was given that has not been overtaken by use.
    """

    active_at: datetime
    reported_at: datetime | None
    sources: Sequence[ActivitySource]
    kept_at: datetime | None = None
    keeps: int = 0
    warned_at: datetime | None = None


def verdict(seen: Seen, rule: IdleRule, now: datetime) -> IdleVerdict:
    """How the lease stands under `rule` at `now`."""
    kept_until = seen.kept_at + timedelta(hours=rule.keep_hours) if seen.kept_at else None
    last = last_use(seen)
    due = last + timedelta(minutes=rule.after_minutes)
    if kept_until is not None:
        due = max(due, kept_until)
    if seen.reported_at is None or now - seen.reported_at > FRESH:
        state: IdleState = "unknown"
        reasons = ["The server has not said for a while what goes on in it."]
    elif busy := [source for source in seen.sources if source.busy]:
        state, reasons = "in_use", [_busy(source) for source in busy]
    elif now < due and kept_until is not None and now < kept_until:
        state, reasons = "kept", [f"Kept on request, {words.duration(_s(kept_until - now))} more."]
    else:
        state = "in_use" if now < due else "idle"
        reasons = _quiet(seen, now)
    idle = state == "idle"
    releasing = rule.action is IdleAction.RELEASE
    grace = timedelta(minutes=rule.grace_minutes)
    found = IdleVerdict(
        state=state,
        summary="",
        since=last if idle else None,
        reasons=reasons,
        action=rule.action.value,
        idle_at=None if state == "unknown" or busy_now(seen) else due,
        release_at=(seen.warned_at or now) + grace if idle and releasing else None,
        kept_until=kept_until if kept_until is not None and kept_until > now else None,
        keeps_left=max(0, rule.keeps - seen.keeps),
    )
    return found.model_copy(update={"summary": summary(found)})


def summary(found: IdleVerdict) -> str:
    """A verdict in one sentence, its moments marked for the reader's zone."""
    if found.state == "idle" and found.since is not None:
        said = f"Nobody has used it since {words.mark(found.since)}"
        back = f"; it is given back at {words.mark(found.release_at)}" if found.release_at else ""
        return f"{said}{back}."
    if found.state == "kept" and found.kept_until is not None:
        return f"Kept on request until {words.mark(found.kept_until)}."
    if found.state == "unknown":
        return "Whether it is used is not known."
    if found.idle_at is not None:
        return f"In use. Without more use it counts as idle from {words.mark(found.idle_at)}."
    return "In use."


def busy_now(seen: Seen) -> bool:
    return any(source.busy for source in seen.sources)


def last_use(seen: Seen) -> datetime:
    """The last sign of use; a busy source was in use when it was looked at."""
    signs = [seen.active_at]
    for source in seen.sources:
        if source.last_at is not None:
            signs.append(source.last_at)
        if source.busy and seen.reported_at is not None:
            signs.append(seen.reported_at)
    return max(signs)


def _busy(source: ActivitySource) -> str:
    return source.detail or f"The {_NAMES[source.source]} are busy."


def _quiet(seen: Seen, now: datetime) -> list[str]:
    """Per source, since when nothing has happened there."""
    said = []
    for source in seen.sources:
        name = _NAMES[source.source]
        if source.last_at is None:
            said.append(f"No use of {name} since the server is up.")
        else:
            said.append(f"{name[0].upper()}{name[1:]}: last used {words.ago(source.last_at, now)}.")
    return said


def _s(span: timedelta) -> float:
    return span.total_seconds()

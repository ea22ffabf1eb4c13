"""Which snapshots of a disk may go. Pure: takes `now`, deletes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot as the database knows it; one that is not `complete` is being taken or failed."""

    id: str
    taken_at: datetime
    complete: bool = True


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What is kept: the newest `keep_last` snapshots, and those of the last `keep_days` days.

    The newest complete one stays even with `keep_last=0`. Raises ValueError for negative values.
    """

    keep_last: int
    keep_days: float

    def __post_init__(self) -> None:
        if self.keep_last < 0 or not self.keep_days >= 0:
            raise ValueError("keep_last and keep_days must not be negative")


def to_delete(
    snapshots: Sequence[SnapshotRecord], policy: RetentionPolicy, now: datetime
) -> list[str]:
    """The ids of one disk's snapshots that may be deleted, oldest first.

    Kept are the newest complete one, the newest `keep_last` complete ones, and everything taken
    within `keep_days` before `now` (its first moment included) or, by a clock that was set back,
    after it. Incomplete ones neither count nor go: they are not this rule's business.
    """
    complete = sorted((s for s in snapshots if s.complete), key=lambda s: (s.taken_at, s.id))
    older = complete[: max(0, len(complete) - max(1, policy.keep_last))]
    return [s.id for s in older if _age_days(s, now) > policy.keep_days]


def _age_days(snapshot: SnapshotRecord, now: datetime) -> float:
    # Compared as a quotient: a policy of many years would overflow when taken from `now`.
    return (now - snapshot.taken_at) / timedelta(days=1)

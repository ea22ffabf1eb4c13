"""Whether a lease is used, told from its row: the values for the pure verdict in `idleness`."""

from __future__ import annotations

from datetime import datetime

from gpudev_client.models import ActivitySource, IdleVerdict
from gpudev_client.states import State
from gpudev_service import idleness
from gpudev_service.settings import IdleRule, Settings
from gpudev_service.store.models import ReservationRow


def rule_for(settings: Settings, row: ReservationRow) -> IdleRule | None:
    """The rule that concerns a lease; None where idleness is off for its owner."""
    return settings.policy.idle_of(tuple(row.groups))


def verdict(settings: Settings, row: ReservationRow, now: datetime) -> IdleVerdict | None:
    """How an active lease stands; None where nothing is judged."""
    rule = rule_for(settings, row)
    if rule is None or State(row.state) is not State.ACTIVE:
        return None
    return idleness.verdict(seen(row, now), rule, now)


def seen(row: ReservationRow, now: datetime) -> idleness.Seen:
    """What is known of a lease's use."""
    return idleness.Seen(
        active_at=row.active_at or row.starts_at or now,
        reported_at=row.activity_at,
        sources=[ActivitySource.model_validate(source) for source in row.activity or []],
        kept_at=row.idle_kept_at,
        keeps=row.idle_keeps,
        warned_at=row.idle_warned_at,
    )

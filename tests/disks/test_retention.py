"""Which snapshots may go: properties that hold for every history, and a few to read."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_service.disks.retention import RetentionPolicy, SnapshotRecord, to_delete

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC)

moments = st.one_of(
    st.integers(-5, 60).map(lambda days: NOW - timedelta(days=days)),
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
histories = st.lists(st.tuples(moments, st.booleans()), max_size=30).map(
    lambda rows: [
        SnapshotRecord(f"s{number}", taken_at, complete)
        for number, (taken_at, complete) in enumerate(rows)
    ]
)
policies = st.builds(
    RetentionPolicy,
    keep_last=st.integers(0, 12),
    keep_days=st.one_of(st.integers(0, 60), st.floats(0, 1e12), st.just(float("inf"))),
)


@given(histories, policies)
def test_what_never_goes(history: list[SnapshotRecord], policy: RetentionPolicy) -> None:
    gone = set(to_delete(history, policy, NOW))
    complete = sorted((s for s in history if s.complete), key=lambda s: s.taken_at, reverse=True)
    kept = [s for s in complete if s.id not in gone]
    if complete:
        assert kept
        assert kept[0].taken_at == complete[0].taken_at
    assert len(kept) >= min(len(complete), max(1, policy.keep_last))
    for snapshot in history:
        if snapshot.id in gone:
            assert snapshot.complete
            assert (NOW - snapshot.taken_at) / timedelta(days=1) > policy.keep_days
            assert sum(other.taken_at >= snapshot.taken_at for other in kept) >= policy.keep_last


@given(histories, policies)
def test_what_goes(history: list[SnapshotRecord], policy: RetentionPolicy) -> None:
    """No more is kept than was asked for."""
    gone = to_delete(history, policy, NOW)
    kept = [s for s in history if s.complete and s.id not in gone]
    beyond = [s for s in kept if (NOW - s.taken_at) / timedelta(days=1) > policy.keep_days]
    if beyond:
        assert len(kept) <= max(1, policy.keep_last) or len(beyond) < len(kept)
        newest_first = sorted(kept, key=lambda s: s.taken_at, reverse=True)
        oldest_allowed = newest_first[: max(1, policy.keep_last)][-1].taken_at
        assert all(s.taken_at >= oldest_allowed for s in beyond)


@given(histories, policies)
def test_order_repetition_and_time(history: list[SnapshotRecord], policy: RetentionPolicy) -> None:
    gone = to_delete(history, policy, NOW)
    assert to_delete(history[::-1], policy, NOW) == gone
    left = [s for s in history if s.id not in gone]
    assert to_delete(left, policy, NOW) == []
    assert set(gone) <= set(to_delete(history, policy, NOW + timedelta(days=30)))


def taken(*days_ago: float) -> list[SnapshotRecord]:
    return [SnapshotRecord(f"{days:g}", NOW - timedelta(days=days)) for days in days_ago]


@pytest.mark.parametrize(
    ("days_ago", "keep_last", "keep_days", "gone"),
    [
        ([], 3, 7, []),
        ([400], 0, 0, []),
        ([1, 2, 3], 1, 0, ["3", "2"]),
        ([1, 2, 3], 2, 0, ["3"]),
        ([1, 7, 7.5], 1, 7, ["7.5"]),
        ([0, -3, 10], 1, 7, ["10"]),
        ([30, 20, 10], 0, 7, ["30", "20"]),
    ],
)
def test_examples(days_ago: list[float], keep_last: int, keep_days: float, gone: list[str]) -> None:
    assert to_delete(taken(*days_ago), RetentionPolicy(keep_last, keep_days), NOW) == gone


def test_what_is_not_complete_neither_counts_nor_goes() -> None:
    history = [*taken(20, 30), SnapshotRecord("taking", NOW, complete=False)]
    assert to_delete(history, RetentionPolicy(1, 7), NOW) == ["30"]


@pytest.mark.parametrize(("last", "days"), [(-1, 1), (1, -0.5), (1, float("nan"))])
def test_a_policy_that_makes_no_sense_is_refused(last: int, days: float) -> None:
    with pytest.raises(ValueError, match="negative"):
        RetentionPolicy(last, days)

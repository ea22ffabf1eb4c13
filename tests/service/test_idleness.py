"""The idle verdict, as a pure function of what was seen, the rule, and the time."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client.models import ActivitySource
from gpudev_service.idleness import FRESH, Seen, last_use, verdict
from gpudev_service.settings import IdleAction, IdleRule, Policy, PolicyRule
from tests.fixtures.world import START

RULE = IdleRule(action=IdleAction.RELEASE, after_minutes=60, grace_minutes=15, keep_hours=4)


def after(**span: float) -> datetime:
    return START + timedelta(**span)


def source(kind: str, *, busy: bool = False, last_at: datetime | None = None) -> ActivitySource:
    return ActivitySource.model_validate({"source": kind, "busy": busy, "last_at": last_at})


def seen(*sources: ActivitySource, at: datetime, **values: object) -> Seen:
    return Seen(active_at=START, reported_at=at, sources=sources, **values)  # type: ignore[arg-type]


def test_a_lease_is_not_idle_before_its_time_is_up() -> None:
    just_before = after(minutes=59)
    assert verdict(seen(at=just_before), RULE, just_before).state == "in_use"
    just_after = after(minutes=60)
    assert verdict(seen(at=just_after), RULE, just_after).state == "idle"


def test_a_busy_kernel_is_use_however_long_nothing_else_happens() -> None:
    now = after(hours=30)
    found = verdict(seen(source("kernels", busy=True, last_at=START), at=now), RULE, now)
    assert found.state == "in_use"
    assert found.reasons == ["The kernels are busy."]
    assert found.idle_at is None


@pytest.mark.parametrize("kind", ["kernels", "terminals", "ssh", "programs", "gpu"])
def test_each_source_alone_keeps_a_lease(kind: str) -> None:
    now = after(hours=3)
    used = after(hours=2, minutes=30)
    found = verdict(seen(source(kind, last_at=used), at=now), RULE, now)
    assert found.state == "in_use"
    assert found.idle_at == used + timedelta(hours=1)


def test_what_nobody_reports_on_is_not_known_and_never_idle() -> None:
    now = after(hours=30)
    assert verdict(Seen(START, None, []), RULE, now).state == "unknown"
    stale = now - FRESH - timedelta(seconds=1)
    assert verdict(seen(at=stale), RULE, now).state == "unknown"
    assert verdict(seen(at=now - FRESH), RULE, now).state == "idle"


def test_the_reasons_say_when_each_was_last_used() -> None:
    now = after(hours=2)
    found = verdict(
        seen(source("kernels", last_at=after(minutes=30)), source("gpu"), at=now), RULE, now
    )
    assert found.state == "idle"
    assert found.since == after(minutes=30)
    assert found.reasons == [
        "Kernels: last used 1 h 30 min ago.",
        "No use of GPUs since the server is up.",
    ]


def test_kept_for_the_hours_of_the_rule_and_no_longer() -> None:
    kept = after(hours=2)
    for minutes, state in ((0, "kept"), (239, "kept"), (240, "idle")):
        now = kept + timedelta(minutes=minutes)
        found = verdict(seen(at=now, kept_at=kept, keeps=1), RULE, now)
        assert found.state == state, minutes
        assert found.keeps_left == RULE.keeps - 1
        assert (found.kept_until is None) == (state == "idle")


def test_a_release_counts_from_the_warning() -> None:
    now = after(hours=2)
    assert verdict(seen(at=now), RULE, now).release_at == now + timedelta(minutes=15)
    warned = now - timedelta(minutes=10)
    assert verdict(seen(at=now, warned_at=warned), RULE, now).release_at == warned + timedelta(
        minutes=15
    )
    warn_only = RULE.model_copy(update={"action": IdleAction.WARN})
    assert verdict(seen(at=now), warn_only, now).release_at is None


IDLE = "Nobody has used it since 2026-03-01T12:00Z; it is given back at 2026-03-01T13:45Z."


@pytest.mark.parametrize(
    ("facts", "minutes", "said"),
    [
        ({}, 30, "In use. Without more use it counts as idle from 2026-03-01T13:00Z."),
        ({"sources": [source("gpu", busy=True)]}, 30, "In use."),
        ({"kept_at": after(minutes=70)}, 90, "Kept on request until 2026-03-01T17:10Z."),
        ({}, 90, IDLE),
        ({"reported_at": None}, 90, "Whether it is used is not known."),
    ],
)
def test_a_verdict_is_one_sentence(facts: dict[str, object], minutes: int, said: str) -> None:
    now = after(minutes=minutes)
    values = {"active_at": START, "reported_at": now, "sources": []} | facts
    assert verdict(Seen(**values), RULE, now).summary == said  # type: ignore[arg-type]


def test_a_verdict_that_only_warns_promises_no_end() -> None:
    warn_only = RULE.model_copy(update={"action": IdleAction.WARN})
    now = after(minutes=90)
    assert verdict(seen(at=now), warn_only, now).summary == (
        "Nobody has used it since 2026-03-01T12:00Z."
    )


spans = st.none() | st.integers(0, 48 * 60).map(lambda m: START + timedelta(minutes=m))


@given(
    used=st.lists(st.tuples(spans, st.booleans()), max_size=4),
    now=st.integers(0, 72 * 60).map(lambda m: START + timedelta(minutes=m)),
    kept=spans,
)
def test_no_verdict_of_idleness_within_the_rules_minutes_of_any_use(
    used: list[tuple[datetime | None, bool]], now: datetime, kept: datetime | None
) -> None:
    kinds = ("kernels", "terminals", "ssh", "gpu")
    sources = [
        source(kind, busy=busy, last_at=min(at, now) if at else None)
        for kind, (at, busy) in zip(kinds, used, strict=False)
    ]
    facts = seen(*sources, at=now, kept_at=kept if kept and kept <= now else None)
    found = verdict(facts, RULE, now)
    if found.state == "idle":
        assert not any(item.busy for item in sources)
        assert now - last_use(facts) >= timedelta(minutes=RULE.after_minutes)
        assert facts.kept_at is None or now >= facts.kept_at + timedelta(hours=RULE.keep_hours)
    else:
        assert found.since is None
        assert found.release_at is None


def test_of_several_rules_the_most_generous_counts() -> None:
    strict = IdleRule(action=IdleAction.RELEASE, after_minutes=30)
    long = IdleRule(action=IdleAction.RELEASE, after_minutes=300)
    told = IdleRule(action=IdleAction.WARN, after_minutes=10)
    off = IdleRule(action=IdleAction.NOTHING, after_minutes=10)
    groups = {"a": PolicyRule(idle=long), "b": PolicyRule(idle=told), "c": PolicyRule(idle=off)}
    policy = Policy(default=PolicyRule(idle=strict), groups=groups)
    assert policy.idle_of(()) == strict
    assert policy.idle_of(("a",)) == long
    assert policy.idle_of(("a", "b")) == told
    for order in product("abc", repeat=3):
        if set(order) == set("abc"):
            assert policy.idle_of(order) == off
    assert Policy().idle_of(("a",)) is None

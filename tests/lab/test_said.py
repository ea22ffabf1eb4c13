"""Sentences of the service are known to the panel, so that it can say them in other languages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from gpudev_client import podstatus
from gpudev_client.models import ActivitySource
from gpudev_client.models.activity import SourceName
from gpudev_lab import activity
from gpudev_service.actor import Actor
from gpudev_service.idleness import Seen, verdict
from gpudev_service.operations import extension, reservations
from gpudev_service.settings import IdleAction, IdleRule, Policy, PolicyRule
from gpudev_service.store.engine import Store
from tests.fixtures.world import make_world
from tests.tiers import ROOT

from .test_translations import _ONE, value

START = datetime(2026, 5, 12, 12, 0, tzinfo=UTC)
SOURCES = get_args(SourceName)


def known() -> list[re.Pattern[str]]:
    text = (ROOT / "labextension" / "src" / "said.ts").read_text()
    parts = (re.split(r"%\d", value(match[1])) for match in _ONE.finditer(text))
    return [re.compile(".+".join(map(re.escape, plain))) for plain in parts]


def unknown(*said: str | None) -> list[str | None]:
    patterns = known()
    return [text for text in said if not text or not any(p.fullmatch(text) for p in patterns)]


def seen(*sources: ActivitySource, **values: Any) -> Seen:
    return Seen(active_at=START, reported_at=START + timedelta(hours=72), sources=sources, **values)


@pytest.mark.parametrize("action", list(IdleAction))
@pytest.mark.parametrize(
    "what",
    [
        Seen(START, None, []),
        seen(*(ActivitySource(source=name) for name in SOURCES)),
        seen(*(ActivitySource(source=name, last_at=START) for name in SOURCES)),
        seen(*(ActivitySource(source=name, busy=True) for name in SOURCES)),
        seen(ActivitySource(source="ssh", last_at=START + timedelta(hours=71, minutes=50))),
        seen(kept_at=START + timedelta(hours=71)),
    ],
    ids=["unknown", "never used", "long ago", "busy", "just now", "kept"],
)
def test_verdicts(what: Seen, action: IdleAction) -> None:
    rule = IdleRule(action=action, after_minutes=60)
    found = verdict(what, rule, START + timedelta(hours=72))
    assert not unknown(found.summary, *found.reasons)


def test_what_a_server_sees() -> None:
    now = [START]
    details = [activity.ssh(now * count, START).detail for count in (1, 2)]
    assert not unknown(*details)


async def test_what_limits_an_extension(store: Store, tmp_path: Path) -> None:
    several: list[dict[str, Any]] = [{"max_extension_hours": 1}, {"max_total_hours": 2}, {}]
    for limits in several:
        policy = Policy(default=PolicyRule(max_hours=24, **limits))
        world = make_world(store, tmp_path, policy=policy)
        lease = await world.running(await world.reserve("ada", gpu_type="t4-small", hours=1))
        assert not unknown((await extension.offer(world.ctx, lease.id)).limited_by)
        for user in ("ada", "grace"):
            waits = await world.reserve(user, gpu_type="t4-small", hours=1)
            assert not unknown((await extension.offer(world.ctx, lease.id)).limited_by)
            await reservations.cancel(world.ctx, waits.id, Actor(user))
        await reservations.cancel(world.ctx, lease.id, Actor("ada"))
        await world.sweep()


def test_what_has_happened_to_a_server() -> None:
    ends = [*podstatus._DISRUPTIONS.values(), *podstatus._PHASES.values()]
    told = [words for code, words in ends if code in {"evicted", "node_lost", "preempted"}]
    told += [podstatus._ENDS["ContainerStatusUnknown"][1], podstatus.vanished().words]
    told += [podstatus._evicted({"message": which}).words for which in ("disk", "memory")]
    for code, reason in ((1, "Error"), (137, "Error"), (137, "OOMKilled")):
        ended = podstatus.last_end(pod(reason=reason, exitCode=code))
        assert ended is not None
        told += [
            ended.words,
            f"{ended.about('The worker on n2')} It was started again in its place.",
        ]
    told.append("It was started again in its place, 2 times so far.")
    told.append("The server has ended unexpectedly. The server runs again.")
    assert not unknown(*(part for text in told for part in re.split(r"(?<=\.) (?=[A-Z])", text)))


def pod(**ended: Any) -> dict[str, Any]:
    """A pod whose container was started again after an end."""
    status = {"name": "notebook", "state": {"running": {}}, "lastState": {"terminated": ended}}
    limits = {"limits": {"memory": "4G"}}
    return {
        "metadata": {},
        "spec": {"containers": [{"name": "notebook", "resources": limits}]},
        "status": {"phase": "Running", "containerStatuses": [{**status, "restartCount": 1}]},
    }

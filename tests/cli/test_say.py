"""Sentences about reservations, starts and where the time went; which one is meant."""

from __future__ import annotations

from datetime import UTC, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from gpudev_client import models
from gpudev_client.cli import pick, say
from gpudev_client.cli.app import Refused, in_words
from gpudev_client.cli.capacity import _remarks as remarks
from gpudev_client.cli.reservations import _details as details
from gpudev_client.cli.trace import trace
from gpudev_client.errors import GpuDevError, RefusalError, ServerFault, Unreachable
from gpudev_client.states import State
from tests.client.models import NOW, reservation


def later(**span: float) -> Any:
    return NOW + timedelta(**span)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            reservation(State.QUEUED, position=3, promised_start=later(hours=2)),
            "queued: 3rd in the queue, starts at 16:30 at the latest (in 2 h)",
        ),
        (
            reservation(
                State.QUEUED,
                position=1,
                promised_start=later(minutes=5),
                first_promised_start=later(hours=3),
            ),
            (
                "queued: next in the queue, starts at 14:35 at the latest (in 5 min); "
                "earlier than first promised (17:30)"
            ),
        ),
        (reservation(State.QUEUED), "queued: no start time yet"),
        (
            reservation(State.QUEUED, limited_by="Your leases hold all that you may have."),
            "queued: no start time yet. Your leases hold all that you may have.",
        ),
        (
            reservation(State.SCHEDULED, booked_for=later(days=2)),
            "scheduled: booked, starts on Thu 14 May at 14:30",
        ),
        (reservation(State.PREPARING), "preparing: the server is starting on its GPUs"),
        (reservation(), "active: 30 min left, until 15:00"),
        (
            reservation(server_lost_at=NOW, restart_until=later(minutes=10)),
            (
                "active: the server has stopped and can be started again until 14:40; "
                "30 min left, until 15:00"
            ),
        ),
        (reservation(State.STOPPING), "stopping: the server is being stopped"),
        (reservation(State.EXPIRED, ended_at=NOW), "expired: ended at 14:30"),
        (
            reservation(State.FAILED, ended_at=NOW, reason="The image is gone."),
            "failed: ended at 14:30: The image is gone.",
        ),
    ],
)
def test_how_a_reservation_stands(found: models.Reservation, said: str) -> None:
    assert say.waiting(found, NOW, UTC) == said


def start(gpus: int, minutes: float | None, reason: str | None = None) -> models.EarliestStart:
    at = None if minutes is None else later(minutes=minutes)
    return models.EarliestStart(gpus=gpus, starts_at=at, reason=reason)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ([start(1, 0)], "1: now"),
        ([start(n, 0) for n in range(1, 9)], "1 to 8: now"),
        ([start(1, 0), start(2, 0), start(4, 90)], "1/2: now, 4: 16:00"),
        ([start(1, 0.5), start(2, 90.5)], "1: now, 2: 16:01"),
        ([start(1, None, "in maintenance"), start(2, None)], "1: in maintenance, 2: not possible"),
        ([start(0, 0)], "now"),
        ([start(0, 90)], "16:00"),
    ],
)
def test_earliest_starts(starts: list[models.EarliestStart], said: str) -> None:
    assert say.earliest(starts, NOW, UTC) == said


def entry(minutes: float, state: State, kind: str = "transition") -> models.HistoryEntry:
    return models.HistoryEntry(
        at=later(minutes=minutes), kind=kind, state=state, reason="", actor="ada"
    )


def test_where_the_time_went() -> None:
    history = [
        entry(0, State.QUEUED),
        entry(5, State.QUEUED, "promise"),
        entry(30, State.PREPARING),
        entry(31, State.ACTIVE),
        entry(50, State.ACTIVE, "warning"),
        entry(61, State.STOPPING),
        entry(62, State.EXPIRED),
    ]
    for given_history in (history, history[::-1]):
        steps = trace(given_history, later(hours=9))
        assert [(s.what, s.seconds / 60) for s in steps] == [
            ("in the queue", 30),
            ("starting the server", 1),
            ("active", 30),
            ("stopping", 1),
        ]
    [waiting] = trace(history[:1], later(minutes=7))
    assert (waiting.ended_at, waiting.seconds) == (None, 7 * 60)
    assert trace([], NOW) == []


def test_a_start_is_shown_step_by_step() -> None:
    at = [later(minutes=30, seconds=s).isoformat() for s in (0, 2, 41, 43)]
    steps = [
        {"step": step, "at": moment}
        for step, moment in zip(["begin", "node", "image", "lab"], at, strict=True)
    ]
    began = entry(30.75, State.PREPARING, "milestones").model_copy(
        update={"data": {"steps": steps}}
    )
    found = trace(
        [entry(0, State.QUEUED), entry(30, State.PREPARING), began, entry(30.75, State.ACTIVE)],
        later(hours=1),
    )
    assert [(s.what, s.step, s.seconds) for s in found] == [
        ("in the queue", None, 1800),
        ("starting the server", None, 45),
        ("a node has taken it", "node", 2),
        ("image there", "image", 39),
        ("JupyterLab answers", "lab", 2),
        ("active", None, 1755),
    ]


IDS = ["abcd0000", "abcd1111", "bcde0000", "abc"]


@pytest.mark.parametrize(("prefix", "found"), [("bcde", "bcde0000"), ("abcd1", "abcd1111")])
def test_a_prefix_finds_its_id(prefix: str, found: str) -> None:
    assert pick.match(IDS, prefix, "reservation") == found


def test_a_whole_id_may_be_short() -> None:
    assert pick.match(IDS, "abc", "snapshot") == "abc"


@pytest.mark.parametrize(
    ("prefix", "why"),
    [("abcd", "abcd0000, abcd1111"), ("bcd", "4 characters"), ("zzzz", "no reservation")],
)
def test_a_prefix_that_does_not_tell_is_refused(prefix: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        pick.match(IDS, prefix, "reservation")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RefusalError("quota", "Too many.", accepted=[1, 2]), "Too many. Accepted: 1, 2."),
        (
            RefusalError("policy_limit", "Too long.", accepted={"min": 1 / 12, "max": 24.0}),
            "Too long. Accepted: 0.0833 to 24.",
        ),
        (RefusalError("policy_limit", "At most 24 hours.", accepted=24.0), "At most 24 hours."),
        (RefusalError("x", "No.", accepted=[]), "No."),
        (RefusalError("x", "No.", accepted={"reservation": "abcd"}), "No. Accepted: abcd."),
        (
            RefusalError("not_authenticated", "Unknown token."),
            "Unknown token. Run `gpu-dev login` for a new token.",
        ),
        (ServerFault("Broken.", request_id="r1"), "Broken. (request r1)"),
        (ServerFault("Broken: request r1.", request_id="r1"), "Broken: request r1."),
        (Unreachable("Away."), "Away."),
    ],
)
def test_errors_say_what_would_help(error: GpuDevError, said: str) -> None:
    assert in_words(error) == said


@pytest.mark.parametrize("happened", [True, False])
def test_what_has_happened_to_the_server_is_told_with_its_time(happened: bool) -> None:
    notice = models.Notice(text="The server was killed.", at=NOW) if happened else None
    app: Any = SimpleNamespace(now=lambda: later(hours=1), zone=UTC, width=None, told=str)
    shown = [line.split() for line in details(app, reservation(notice=notice)).splitlines()]
    expected = ["server", "14:30:", "The", "server", "was", "killed."]
    assert [line for line in shown if line[0] == "server"] == ([expected] if happened else [])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ""),
        ({"drained": 8, "simulated": True}, "8 drained, simulated"),
        ({"added_within_minutes": 5}, "more nodes within 5 min"),
        ({"added_within_minutes": 90.0, "drained": 1}, "1 drained, more nodes within 1 h 30 min"),
    ],
)
def test_what_is_remarked_on_a_type(facts: dict[str, Any], expected: str) -> None:
    offer = {"gpu_type": "t4", "total": 8, "free": 0, "queue_length": 0, "hours": 1, "earliest": []}
    assert remarks(models.Availability.model_validate(offer | facts)) == expected

"""What pages say, as tables: pure functions, no server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpudev_client.models import (
    Disk,
    DiskEntry,
    EarliestStart,
    ExtensionOffer,
    NodeView,
    Notice,
    QueueEntry,
    Reservation,
    UnitUse,
)
from gpudev_client.states import FINAL, State
from gpudev_service.pages import cards, disk_views, fleet_views
from gpudev_service.pages.cards import When
from gpudev_service.pages.rendering import when

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def later(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def reservation(state: State, **values: Any) -> Reservation:
    given: dict[str, Any] = {
        "id": "a234567890123456",
        "name": "training",
        "user": "ada",
        "server_name": "a234567890123456",
        "gpu_type": "t4",
        "gpus": 2,
        "hours": 2,
        "disk": None,
        "state": state,
        "submitted_at": NOW,
        "url": "http://hub.example/user/ada/x/lab",
    }
    return Reservation(**(given | values))


def test_a_card_says_which_nodes_were_asked_for_and_which_limit_it_waits_for() -> None:
    waits = reservation(State.QUEUED, node_labels={"rack": "7"}, limited_by="Your leases hold 4.")
    shown = cards.card(waits, "ada", can_change=True)
    assert (shown.labels, shown.limit) == ("rack=7", "Your leases hold 4.")
    plain = cards.card(reservation(State.QUEUED), "ada", can_change=True)
    assert (plain.labels, plain.limit) == ("", None)


@pytest.mark.parametrize(
    ("state", "values", "expected"),
    [
        (
            State.QUEUED,
            {"position": 3, "promised_start": later(1)},
            ("3rd in the queue", "; ", When(later(1), "start")),
        ),
        (State.QUEUED, {"position": None}, ("Not in the queue", "; ", "no start time yet")),
        (
            State.SCHEDULED,
            {"booked_for": later(5), "promised_start": later(5)},
            ("Booked for ", When(later(5)), "; ", When(later(5), "start")),
        ),
        (
            State.PREPARING,
            {"expires_at": later(2)},
            ("The server is starting; ", When(later(2), "left")),
        ),
        (State.ACTIVE, {"expires_at": later(2)}, (When(later(2), "left"),)),
        (
            State.ACTIVE,
            {"expires_at": later(2), "server_lost_at": NOW, "restart_until": later(0.1)},
            (
                "The server has stopped. Start it again before ",
                When(later(0.1)),
                ", or the GPUs go to the next in line.",
            ),
        ),
        (
            State.STOPPING,
            {"expires_at": later(2)},
            ("The server is being stopped; the GPUs are free after that.",),
        ),
        (State.EXPIRED, {"ended_at": later(2)}, ("Ended ", When(later(2), "at"))),
        (State.FAILED, {"ended_at": later(2)}, ("Ended ", When(later(2), "at"))),
    ],
)
def test_where_a_reservation_stands(
    state: State, values: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    assert cards.sentence(reservation(state, **values)) == expected


def test_a_promise_is_rounded_up_in_the_facts_too() -> None:
    view = reservation(State.QUEUED, first_promised_start=NOW + timedelta(seconds=1))
    assert cards.Fact("Promised at first", (When(later(1 / 60)),)) in cards.facts(view)


def test_labels_of_nodes_stand_in_the_facts_where_there_are_any() -> None:
    view = reservation(State.QUEUED, node_labels={"b": "2", "a": ""})
    assert cards.Fact("Nodes with", ("a=, b=2",)) in cards.facts(view)
    assert "Nodes with" not in [fact.label for fact in cards.facts(reservation(State.QUEUED))]


@pytest.mark.parametrize("state", list(State))
def test_what_can_be_done_in_each_state(state: State) -> None:
    view = reservation(state, expires_at=later(2), ended_at=NOW)
    mine, seen = (cards.card(view, "ada", can_change=can) for can in (True, False))
    assert mine.can_cancel == (state not in FINAL | {State.STOPPING})
    assert not seen.can_cancel
    assert (mine.open_url is not None) == (state is State.ACTIVE)
    assert mine.badge
    assert mine.sign
    assert len({sign for _, sign in cards.LOOKS.values()}) == len(State)


@pytest.mark.parametrize(
    ("possible", "values"),
    [
        (0, []),
        (0.01, []),
        (0.25, ["0.25"]),
        (0.5, ["0.5"]),
        (3.27, ["0.5", "1", "2", "3.27"]),
        (24, ["0.5", "1", "2", "4", "8", "12", "24"]),
    ],
)
def test_what_is_offered_is_possible(possible: float, values: list[str]) -> None:
    offer = ExtensionOffer(possible_hours=possible, extendable_until=later(9), limited_by="why")
    made = cards.extension(offer)
    assert [choice.value for choice in made.choices] == values
    assert all(float(value) <= possible for value in values)
    assert (made.until is None) == (not values)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([0], "0"), ([0, 1, 2, 5], "0-2, 5"), ([3, 1], "1, 3"), ([6, 7], "6-7")],
)
def test_runs_of_numbers(numbers: list[int], text: str) -> None:
    assert cards.ranges(numbers) == text


def test_a_time_carries_its_exact_moment_and_its_words() -> None:
    assert when(later(2), NOW, "left") == (
        '<time datetime="2026-03-01T14:00:00.000Z" data-words="left">'
        "2 h left, until 14:00 UTC</time>"
    )
    assert when(None, NOW, "start") == "no start time yet"


def test_counts_that_start_together_are_drawn_together() -> None:
    earliest = [
        EarliestStart(gpus=1, starts_at=NOW),
        EarliestStart(gpus=2, starts_at=NOW + timedelta(seconds=1)),
        EarliestStart(gpus=3, starts_at=later(5)),
        EarliestStart(gpus=4, starts_at=later(5)),
        EarliestStart(gpus=8, starts_at=None, reason="no room"),
    ]
    made = fleet_views.starts(earliest, NOW, "GPU")
    assert [(s.counts, s.now, s.at, s.reason) for s in made] == [
        ("1-2 GPUs", True, None, None),
        ("3-4 GPUs", False, later(5), None),
        ("8 GPUs", False, None, "no room"),
    ]
    share = fleet_views.starts([EarliestStart(gpus=0, starts_at=NOW)], NOW, "share")
    assert share[0].counts == "1 share"


def test_gpus_of_a_node_are_grouped_by_what_becomes_of_them() -> None:
    held = [
        UnitUse(unit=0, until=later(1), reservation="r1", user="ada", mine=True),
        UnitUse(unit=1, until=later(1), reservation="r1", user="ada", mine=True),
        UnitUse(unit=2, until=later(3)),
    ]
    node = NodeView(name="n", gpu_type="t4", units=4, free=1, held=held)
    (row,) = fleet_views.node_rows([node], [])
    assert [(g.units, g.kind, g.reservation, g.user) for g in row.groups] == [
        ("GPUs 0-1", "mine", "r1", "ada"),
        ("GPU 2", "held", None, None),
        ("GPU 3", "free", None, None),
    ]
    drained = node.model_copy(update={"drained": True, "free": 0})
    (row,) = fleet_views.node_rows([drained], [])
    assert (row.free, row.groups[-1].kind) == ("drained", "drained")


def test_a_long_queue_shows_its_head_and_the_viewers_own() -> None:
    entries = [
        QueueEntry(position=n, gpu_type="t4", gpus=1, hours=1, promised_start=later(n), mine=n == 9)
        for n in (1, 2, 3, 9)
    ]
    (queue,) = fleet_views.queues(entries, {"t4": 10})
    assert [(row.position, row.who) for row in queue.rows] == [
        (1, "somebody"),
        (2, "somebody"),
        (3, "somebody"),
        (9, "you"),
    ]
    assert queue.more == 6


def test_of_deleted_disks_of_a_name_the_last_one_can_come_back() -> None:
    def disk(name: str, deleted: float | None) -> Disk:
        at = None if deleted is None else later(deleted)
        return Disk(name=name, user="ada", created_at=NOW, deleted_at=at)

    there, gone = disk_views.split([disk("a", 1), disk("a", 3), disk("a", 2), disk("a", None)])
    assert [d.name for d in there] == ["a"]
    assert [(d.name, d.deleted) for d in gone] == [("a", later(3))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", [("work", None)]),
        ("runs/one", [("work", ""), ("runs", "runs"), ("one", None)]),
        ("a//b/", [("work", ""), ("a", "a"), ("b", None)]),
    ],
)
def test_the_way_to_a_directory(path: str, expected: list[tuple[str, str | None]]) -> None:
    assert [(c.shown, c.path) for c in disk_views.crumbs("work", path)] == expected


def test_entries_lead_into_directories_only() -> None:
    entries = [
        DiskEntry(name="d", kind="directory", size_bytes=4096, modified_at=NOW),
        DiskEntry(name="f", kind="file", size_bytes=1500, modified_at=NOW),
        DiskEntry(name="l", kind="symlink", size_bytes=4, modified_at=NOW),
    ]
    rows = disk_views.entry_rows(entries, "runs/")
    assert [(r.path, r.size) for r in rows] == [("runs/d", ""), (None, "1.5 kB"), (None, "")]


def test_a_card_says_what_has_happened_to_the_server_where_that_is_known() -> None:
    told = Notice(text="The server was killed.", at=NOW)
    for state, notice in ((State.ACTIVE, told), (State.ACTIVE, None), (State.QUEUED, None)):
        shown = cards.card(reservation(state, notice=notice), "ada", can_change=True)
        assert shown.notice == notice

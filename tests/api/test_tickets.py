"""A ticket opens one server, once, within a minute; none pushes out somebody else's."""

from __future__ import annotations

import pytest

from gpudev_service.api import tickets
from gpudev_service.api.tickets import LIFE, Tickets


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def issued(time: Time) -> Tickets:
    return Tickets(time)


def test_a_ticket_is_redeemed_once(issued: Tickets) -> None:
    ticket = issued.issue("r1", "ada")
    assert issued.redeem("r1", ticket) == "ada"
    assert issued.redeem("r1", ticket) is None
    assert len(issued) == 0


def test_a_ticket_of_one_reservation_opens_no_other_and_is_spent_by_trying(issued: Tickets) -> None:
    ticket = issued.issue("r1", "ada")
    assert issued.redeem("r2", ticket) is None
    assert issued.redeem("r1", ticket) is None


def test_a_ticket_is_void_after_a_minute(issued: Tickets, time: Time) -> None:
    assert LIFE == 60
    early, late = issued.issue("r1", "ada"), issued.issue("r1", "ada")
    time.now = LIFE - 0.001
    assert issued.redeem("r1", early) == "ada"
    time.now = LIFE
    assert issued.redeem("r1", late) is None


def test_nobody_pushes_out_the_tickets_of_somebody_else(
    issued: Tickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "EACH_MAX", 3)
    kept = issued.issue("r1", "grace")
    first, *rest = [issued.issue("r1", "ada") for _ in range(4)]
    assert issued.redeem("r1", first) is None
    assert [issued.redeem("r1", ticket) for ticket in rest] == ["ada"] * 3
    assert issued.redeem("r1", kept) == "grace"


def test_one_person_has_up_to_200_and_all_together_20000(issued: Tickets) -> None:
    for _ in range(201):
        issued.issue("r1", "ada")
    assert len(issued) == 200
    for number in range(99 * 200 + 1):
        issued.issue("r1", f"user-{number % 100}")
    assert len(issued) == 20_000


def test_memory_is_bounded(issued: Tickets, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "ALL_MAX", 10)
    for number in range(30):
        issued.issue("r1", f"user-{number}")
    assert len(issued) == 10
    time.now = LIFE
    issued.issue("r1", "ada")
    assert len(issued) == 1
    assert list(issued._of) == ["ada"]


def test_what_is_kept_is_no_ticket(issued: Tickets) -> None:
    ticket = issued.issue("r1", "ada")
    assert ticket not in repr(vars(issued))

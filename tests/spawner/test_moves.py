"""A start whose reservation is planned anew under way."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gpudev_client import errors
from gpudev_client.models import NodePlacement, Reservation, ServerLaunch
from gpudev_client.states import State
from gpudev_spawner import moves
from gpudev_spawner.connection import Connection

from .pods import launch, plan


def now(**changes: Any) -> Reservation:
    return launch(plan()).reservation.model_copy(update=changes)


def at(node: str) -> list[NodePlacement]:
    return [NodePlacement(node=node, units=[0, 1], gpu_ids=["0", "1"])]


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({}, False),
        ({"state": State.ACTIVE}, False),
        ({"state": State.QUEUED, "placement": []}, True),
        ({"placement": at("gpu-2")}, True),
        ({"placement": at("gpu-1")}, False),
        # Over is not moved; that is told first.
        ({"state": State.CANCELLED, "placement": []}, False),
    ],
)
def test_a_reservation_that_is_elsewhere_has_moved(changes: dict[str, Any], moved: bool) -> None:
    assert moves.has_moved(now(**changes), launch(plan()).reservation) is moved


@pytest.mark.parametrize(
    ("state", "over"),
    [(State.PREPARING, False), (State.STOPPING, True), (State.FAILED, True), (State.QUEUED, False)],
)
def test_when_a_lease_is_over(state: State, over: bool) -> None:
    assert moves.is_over(now(state=state)) is over


class Answers:
    """A connection to a service that answers one question in this way."""

    def __init__(self, answer: ServerLaunch | Exception) -> None:
        self.client, self._answer = self, answer

    async def launch(self, reservation_id: str) -> ServerLaunch:
        assert reservation_id == now().id
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def launched_at(node: str) -> ServerLaunch:
    return launch(plan()).model_copy(update={"reservation": now(placement=at(node))})


@pytest.mark.parametrize(
    ("answer", "moved"),
    [
        (launched_at("gpu-1"), False),
        (launched_at("gpu-2"), True),
        (errors.Conflict("planned_again", "It waits again."), True),
        # Its lease is over, or nobody can say: the start goes on, and hears of it in other ways.
        (errors.Conflict("wrong_state", "It is stopping."), False),
        (errors.ServerFault("The cluster is away.", status=503), False),
        (errors.TooManyRequests("too_many_requests", "Slow down."), False),
        (errors.Unreachable("Nobody answers."), False),
    ],
)
async def test_a_start_asks_whether_it_is_still_at_the_right_place(
    answer: ServerLaunch | Exception, moved: bool
) -> None:
    asked = moves.check(cast("Connection", Answers(answer)), now(placement=at("gpu-1")))
    if moved:
        with pytest.raises(moves.Moved):
            await asked
    else:
        await asked

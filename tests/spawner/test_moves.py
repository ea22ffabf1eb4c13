"""A start whose reservation is planned anew under way."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_client.models import NodePlacement, Reservation
from gpudev_client.states import State
from gpudev_spawner import moves

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

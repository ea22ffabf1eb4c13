"""What happens to a start or a server from elsewhere: its lease is over, its reservation was
planned anew, the Hub ends."""

from __future__ import annotations

import asyncio

from jupyterhub.user import User

from gpudev_client.models import Reservation
from gpudev_client.states import FINAL, WAITING, State


class Moved(Exception):  # noqa: N818 - what happened
    """While its server started a reservation was planned anew: it waits again, or is to start on
    other nodes. Its place in the queue is kept; that is the service's business."""


def is_over(reservation: Reservation) -> bool:
    return reservation.state is State.STOPPING or reservation.state in FINAL


def has_moved(now: Reservation, launched: Reservation) -> bool:
    """Whether the reservation is not where its server is being started any more."""
    if now.state in WAITING:
        return True
    before = [place.node for place in launched.placement]
    return bool(now.placement) and [place.node for place in now.placement] != before


def hub_ends() -> bool:
    """Whether the Hub stops this server because it stops itself (`cleanup_servers`): then nobody
    has given anything back. Only there a task consists of `User.stop` and nothing around it."""
    task = asyncio.current_task()
    code = getattr(task.get_coro(), "cr_code", None) if task is not None else None
    return code is User.stop.__code__

"""What happens to a start or a server from elsewhere: its lease is over, its reservation was
planned anew, the Hub ends."""

from __future__ import annotations

import asyncio

from jupyterhub.user import User

from gpudev_client import errors
from gpudev_client.models import Reservation, ServerLaunch
from gpudev_client.states import FINAL, WAITING, State

from .connection import Connection
from .waiting import Entry

#: Seconds between two questions how a server is to be started, where that cannot be said yet.
_PAUSE = 1.0
#: The service's answer where the planned node went away and another one is looked for.
_PLANNED_AGAIN = "planned_again"


#: How often a start that has failed by its node is tried in a row.
ATTEMPTS = 3


class Moved(Exception):  # noqa: N818 - what happened
    """While its server started a reservation was planned anew: it waits again, or is to start on
    other nodes. Its place in the queue is kept; that is the service's business."""


def is_over(reservation: Reservation) -> bool:
    return reservation.state is State.STOPPING or reservation.state in FINAL


def has_moved(now: Reservation, launched: Reservation | None) -> bool:
    """Whether the reservation is not where its server is being started any more."""
    if launched is None:
        return False
    if now.state in WAITING:
        return True
    before = [place.node for place in launched.placement]
    return bool(now.placement) and [place.node for place in now.placement] != before


async def launched(connection: Connection, entry: Entry, limit: float) -> ServerLaunch:
    """How the server of a lease that runs is to be started. Asked again, for at most `limit`
    seconds, where the service cannot say: it, or the cluster behind it, is away.

    Raises:
        Moved: it waits again, or is to be started elsewhere.
        GpuDevError: the service refuses, or stays away.
    """
    deadline = asyncio.get_running_loop().time() + limit
    while True:
        try:
            launch = await connection.client.launch(entry.reservation.id)
        except errors.Conflict as error:
            await connection.watch.read(entry)
            if error.code != _PLANNED_AGAIN and entry.reservation.state not in WAITING:
                raise
            await asyncio.sleep(_PAUSE)
            raise Moved from error
        except (errors.ServerFault, errors.Unreachable):
            over = is_over(entry.reservation)
            if over or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            entry.update(launch.reservation)  # it may have been planned anew just by asking
            return launch


async def check(connection: Connection, started: Reservation) -> None:
    """Asks whether a server is still to be started where it just is. The service plans it anew
    where its node cannot take it any more, once nothing of it is left there.

    Raises:
        Moved: it waits again, or is to be started elsewhere.
    """
    try:
        now = (await connection.client.launch(started.id)).reservation
    except errors.RefusalError as error:
        if error.code == _PLANNED_AGAIN:
            raise Moved from error
        return  # that its lease is over comes as news; whatever else it is ends no start
    except (errors.ServerFault, errors.Unreachable):
        return  # it cannot be said now; the start goes on
    if has_moved(now, started):
        raise Moved


def hub_ends() -> bool:
    """Whether the Hub stops this server because it stops itself (`cleanup_servers`): then nobody
    has given anything back. Only there a task consists of `User.stop` and nothing around it."""
    task = asyncio.current_task()
    code = getattr(task.get_coro(), "cr_code", None) if task is not None else None
    return code is User.stop.__code__

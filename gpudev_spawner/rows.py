"""The Hub's rows of servers that never ran.

The Hub makes a row for whatever server it is asked for, before anybody knows whether it may start,
and shows it on the home page from then on. A row behind which there never was a server, and which
nobody waits for, is removed as soon as its start is refused; others when the service says so. What
runs or starts is never touched: between the last look and the removal nothing else happens in the
Hub.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.user import User
from jupyterhub.utils import maybe_future

from gpudev_client import errors

if TYPE_CHECKING:
    from .mixin import GpuDevMixin

#: Seconds that the Hub may take to be done with a refused start.
_PATIENCE = 30.0
#: Seconds for which whoever was led to the waiting page can read there why the start was refused.
_READ = 120.0

#: By user, the servers that have not run since their rows were made.
_unused: WeakKeyDictionary[User, set[str]] = WeakKeyDictionary()


def made(spawner: GpuDevMixin) -> None:
    """A spawner was made; its server has never run where the Hub knows of no activity."""
    if spawner.user and spawner.name and spawner.orm_spawner.last_activity is None:
        _unused.setdefault(spawner.user, set()).add(spawner.name)


def ran(spawner: GpuDevMixin) -> None:
    _unused.get(spawner.user, set()).discard(spawner.name)


def forget_refused(spawner: GpuDevMixin) -> None:
    """Removes the row of a start that is being refused, once the Hub is done with it.

    A caller of the Hub's API has the reason in the answer; on the pages it may be on the waiting
    page, which goes with the row.
    """
    wait = 0.0 if isinstance(spawner.handler, APIHandler) else _READ
    spawner.connection.later(forget(spawner, wait))


async def forget(spawner: GpuDevMixin, wait: float = 0.0) -> None:
    """Removes the row after `wait` seconds, if no server ever stood behind it by then."""
    user, name = spawner.user, spawner.name
    future = cast("asyncio.Task[Any] | None", spawner._spawn_future)
    if future is not None:
        await asyncio.wait([future], timeout=_PATIENCE)
    await asyncio.sleep(wait)
    try:
        if name in _unused.get(user, ()) and await spawner.connection.live(user.name, name) is None:
            _remove(user, name)
    except errors.GpuDevError as error:
        spawner.log.info("the row of %s stays for now: %s", spawner._log_name, error)


async def remove_at_rest(user: User, name: str) -> bool:
    """Removes the row of a server that neither runs nor starts; False where it does. One that the
    Hub was asked to stop goes when it has stopped.

    The Hub's own removal ends a start that has begun meanwhile: whoever had just sent the form
    would find nothing.
    """
    if name not in user.orm_spawners:
        return True
    spawner = user.spawners[name]
    # The Hub sets it where somebody asks for a stop, and not where it stops a server by itself.
    stopping: asyncio.Future[Any] | None = getattr(spawner, "_stop_future", None)
    if spawner.pending == "stop" and stopping is not None:
        spawner.connection.later(_remove_stopped(spawner, stopping))
        return True
    if spawner.active:
        return False
    if name not in _unused.get(user, ()):
        # It ran, and may have left something behind; nobody starts it while that is removed.
        spawner._stop_pending = True
        try:
            await maybe_future(spawner.delete_forever())
        except Exception:
            spawner.log.exception("what %s has left could not be removed", spawner._log_name)
        finally:
            spawner._stop_pending = False
    _drop(user, name)
    return True


async def _remove_stopped(spawner: GpuDevMixin, stopping: asyncio.Future[Any]) -> None:
    await asyncio.wait([stopping])  # it ends by the Hub's own limits
    if not spawner.pending:
        await remove_at_rest(spawner.user, spawner.name)


def _remove(user: User, name: str) -> None:
    known = name in user.orm_spawners and name in _unused.get(user, ())
    if known and not user.spawners[name].active:
        _drop(user, name)


def _drop(user: User, name: str) -> None:
    """Nothing else happens in the Hub between the look that it is at rest and this."""
    _unused.get(user, set()).discard(name)
    if name not in user.orm_spawners:
        return
    db: Any = user.db
    db.delete(user.spawners[name].orm_spawner)
    user.spawners.pop(name)
    db.commit()

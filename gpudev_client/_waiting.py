"""Waiting for a reservation and giving it back, each written once as a flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from . import _calls, errors, models
from ._steps import Call, Emit, Flow, Pause, Step
from .ssh.waiting import Progress
from .states import FINAL, State

#: Seconds for which a server that is starting is waited for, and between two questions.
SSH_PATIENCE, _SSH_PAUSE = 600.0, 1.0

OnChange: TypeAlias = Callable[[models.Reservation], None]


def wait_until_active(
    reservation_id: str,
    on_change: OnChange | None = None,
    timeout: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Flow[models.Reservation]:
    """Follow a reservation until its lease is active; returns it.

    Raises ReservationEnded when it ends first and WaitTimeout after about `timeout` seconds.
    """
    end = None if timeout is None else clock() + timeout
    current: models.Reservation = yield from _calls.reservation(reservation_id)
    if _arrived(current, on_change):
        return current
    stream = _calls.events(reservation_id)
    try:
        step = next(stream)
        while True:
            if isinstance(step, Emit):
                current = step.value.reservation
                if _arrived(current, on_change):
                    return current
                step = next(stream)
                continue
            if end is not None:
                left = end - clock()
                if left <= 0:
                    raise errors.WaitTimeout(
                        f"Reservation {reservation_id} is still {current.state.value} "
                        f"after {timeout:g} seconds."
                    )
                step = _within(step, left)
            try:
                answer = yield step
            except errors.Unreachable as error:
                step = stream.throw(error)
            else:
                step = stream.send(answer)
    except StopIteration as done:
        raise errors.Unreachable("The stream of events ended.") from done
    finally:
        stream.close()


def way_in(
    reservation_id: str,
    on_wait: Callable[[str], None] | None = None,
    timeout: float = SSH_PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> Flow[models.SshAccess]:
    """How a server is reached by SSH; asks again while it is starting, for at most `timeout`
    seconds. `on_wait` is told why it has to be waited, at once where that changes, and from time
    to time that it still does."""
    began = clock()
    end = began + timeout
    progress = Progress()
    while True:
        try:
            return (yield from _calls.ssh_access(reservation_id))
        except errors.Conflict as refusal:
            if refusal.code != "server_not_ready" or clock() > end:
                raise
            said = progress.next(refusal.message, clock() - began)
            if said is not None and on_wait is not None:
                on_wait(said)
        yield Pause(_SSH_PAUSE)


def release(reservation_id: str) -> Flow[models.Reservation]:
    """Cancel a reservation unless it is over or on its way there."""
    try:
        return (yield from _calls.cancel(reservation_id))
    except errors.Conflict as error:
        current = yield from _calls.reservation(reservation_id)
        if current.state in FINAL or current.state is State.STOPPING:
            return current
        raise error from None


def _within(step: Step, seconds: float) -> Step:
    # A silent stream has to come back in time for the limit to be noticed.
    return replace(step, silence=seconds) if isinstance(step, Call) and step.stream else step


def _arrived(current: models.Reservation, on_change: OnChange | None) -> bool:
    if on_change is not None:
        on_change(current)
    if current.state in FINAL or current.state is State.STOPPING:
        raise errors.ReservationEnded(current)
    return current.state is State.ACTIVE

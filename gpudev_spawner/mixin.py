"""Reserve, wait, start, release: a Hub spawner whose every server stands on a reservation.

The mixin goes before a spawner class. What differs between local processes and pods is the handle
by which the service can end a server without the Hub, and how the spawner applies the placement.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from jupyterhub.spawner import Spawner
from jupyterhub.utils import maybe_future, wait_for_http_server
from traitlets import Callable, Float, Unicode, default

from gpudev_client import errors
from gpudev_client.models import Milestone, Reservation, ServerLaunch, ServerReport
from gpudev_client.pod_steps import Stage
from gpudev_client.states import FINAL, WAITING, State

from . import asking, failures, form, moves, names, options, rows, stash
from .connection import Connection, shared
from .progress import Message, Phase, message
from .refusals import SpawnRefused, ended, over, refused
from .waiting import Entry

#: The Hub's own limit on a start while it waits in the queue: ten years, in seconds. The limit that
#: the operator set begins when the waiting is over.
ENDLESS = 315_360_000

#: Seconds between two messages to somebody who looks at the waiting page; their generator ends with
#: the first message after they have left.
_PROGRESS_EVERY = 10.0
#: Seconds that the service may take to hear of a failed start before the person reads of it; after
#: that it is told in the background.
_FAILURE_PATIENCE = 10.0


class GpuDevMixin(Spawner):
    """A spawner that asks the reservation service before it starts anything."""

    service_url = Unicode(
        help="""Address of the reservation service, with its prefix and without a trailing slash,
        for example `http://127.0.0.1:8810/services/gpudev`. Best without the proxy in between."""
    ).tag(config=True)

    service_token = Unicode(
        help="""API token of the Hub service that stands for the spawner; it needs the scopes
        `custom:gpudev:spawner` and `access:services!service=gpudev`."""
    ).tag(config=True)

    pages_url = Unicode(
        "/services/gpudev/",
        help="Where people find the service's pages, as seen from their browser.",
    ).tag(config=True)

    answer_interval = Float(
        0.5, help="Seconds between two looks at whether a starting server is still alive."
    ).tag(config=True)

    _phase = Phase.RESERVING
    _reservation: Reservation | None = None
    _asked: options.Asked = None
    _launch: ServerLaunch | None = None
    _limit: float = 0.0
    _failed_start = _leaving = _started = False
    #: Whether this very start has made its reservation, and nothing of it was ever started.
    _new = False
    _began_at: datetime | None = None
    _ran_at: datetime | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._moved = asyncio.Event()
        self._endless_start()
        if self.user is not None:
            self.oauth_client_id = names.client_id(self.user.name, self.name)
            rows.made(self)

    # --- what a subclass says -----------------------------------------------------------------

    def server_handle(self) -> dict[str, str | int | float]:
        """By what the service can end the server that was just started, without the Hub."""
        raise NotImplementedError

    async def apply_launch(self, launch: ServerLaunch) -> None:
        """Prepares the start on its placement; environment variables are set already."""

    def failure_reason(self, error: Exception) -> str | None:
        """Why the server did not come up, for its owner; None for words that fit everything."""
        return None

    def is_by_the_node(self, error: Exception) -> bool:
        """Whether the server might come up on another node, or at another try."""
        return False

    async def run_server(self) -> Any:
        """Starts what runs the server and returns where it is."""
        return await super().start()

    def stage(self) -> Stage | None:
        """How far a start has come, where that can be told."""
        return None

    def milestones(self) -> list[Milestone]:
        """The steps of the start that are done, but for its begin and its end."""
        return [Milestone(step="process", at=self._ran_at)] if self._ran_at else []

    # --- the form -----------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The Hub process's connection to the service."""
        return shared(self.service_url.rstrip("/"), self.service_token)

    options_form = Callable(form.render, help="The reservation form.").tag(config=True)

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return partial(asking.read, self)

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return GpuDevMixin._apply

    def options_from_query(self, query_data: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """A link never starts a server: its arguments fill the form."""
        raise asking.fill(self, query_data)

    async def _apply(self, user_options: Mapping[str, Any]) -> None:
        """Checks options from every source; the Hub calls it before each start."""
        # A group's settings may have changed the limit since this object was made.
        self._endless_start()
        self._asked = asking.parsed(self, user_options or {})

    def _endless_start(self) -> None:
        if self.start_timeout != ENDLESS:
            self._limit = float(self.start_timeout)
            self.start_timeout = ENDLESS

    # --- start --------------------------------------------------------------------------------

    async def start(self) -> Any:
        """Reserves, waits for the turn, and starts the server on its placement."""
        self._move(Phase.RESERVING)
        self._reservation, self._launch, self._attempts = None, None, 0
        self._failed_start = self._leaving = self._started = self._new = False
        self.connection.arm()
        try:
            self._reservation = await self._reserve()
            self._show_name(self._reservation.name)
            with self.connection.watch.entry(self._reservation) as entry:
                while True:
                    await self._wait(entry)
                    stash.drop(self.user)
                    with contextlib.suppress(moves.Moved):
                        return await self._bring_up(entry)
        except asyncio.CancelledError:
            self._cancelled()
            raise
        except errors.GpuDevError as error:
            self.log.warning("%s cannot start: %s", self._log_name, error)
            refusal = refused(error)
            stash.blame(self.user, self.name, refusal.field, refusal.message)
            raise refusal from error
        finally:
            self.start_timeout = ENDLESS
            if self._reservation is None and not self.connection.hub_is_stopping():
                rows.forget_refused(self)

    async def _reserve(self) -> Reservation:
        """The reservation to run: the one that is asked for, the one that lives, or a new one."""
        asked, user = self._asked, self.user.name
        if isinstance(asked, options.Attach):
            return self._mine(await self.connection.client.reservation(asked.reservation))
        if asked is None:
            live = await self.connection.live(user, self.name)
            if live is not None:
                return self._mine(live)
            raise SpawnRefused(
                "Say what to reserve: a GPU type and a number of hours at least. "
                "“Reserve GPUs” on the Hub's home page asks for all of it.",
                field="gpu_type",
            )
        try:
            made = await self.connection.client.reserve(asking.request_for(self, asked))
        except errors.RefusalError:
            # A server that has a reservation goes on with it, whatever is asked for now.
            live = await self.connection.live(user, self.name)
            if live is None:
                raise
            return self._mine(live)
        self._new = True
        return made

    def _show_name(self, name: str) -> None:
        """The reservation's name on the Hub's own pages, which Hub 5 does not have."""
        if self.name and hasattr(self.orm_spawner, "display_name"):
            self.orm_spawner.display_name = name[:255]
            self.user.db.commit()

    def _mine(self, reservation: Reservation) -> Reservation:
        """`reservation`, if it is this server's and can be started."""
        if (reservation.user, reservation.server_name) != (self.user.name, self.name):
            raise SpawnRefused("There is no such reservation.", status=HTTPStatus.NOT_FOUND)
        if reservation.state is State.STOPPING:
            raise SpawnRefused(
                "The last reservation of this server is just ending. Try again in a minute.",
                status=HTTPStatus.CONFLICT,
            )
        if reservation.state in FINAL:
            raise over(reservation)
        return reservation

    async def _wait(self, entry: Entry) -> None:
        """Returns when the lease has begun; for as long as that takes."""
        self._move(Phase.WAITING)
        if entry.reservation.state in WAITING:
            # Between the answer that brought us here and the stream something may have happened.
            # Whether a lease that has begun still goes on is seen when it is asked how to start.
            await self.connection.watch.read(entry)
        # Somebody who leaves ends this start in a moment; their cancelled reservation is not a
        # failure to be shown.
        while entry.reservation.state in WAITING or self._leaving:
            self._reservation = entry.reservation
            await entry.changed()
        self._reservation = self._mine(entry.reservation)

    async def _bring_up(self, entry: Entry) -> Any:
        """Starts the server within the operator's limit; a failure gives the GPUs back."""
        self._move(Phase.STARTING)
        self._began_at, self._ran_at = datetime.now(UTC), None
        reservation_id = entry.reservation.id
        self._launch = await moves.launched(self.connection, entry, self._limit)
        self._reservation = self._launch.reservation
        self.start_timeout = max(1, round(self._limit))
        try:
            where = await asyncio.wait_for(self._start_while_ours(entry), self._limit)
        except moves.Moved:
            await self._end_attempt()  # planned anew, on other nodes
            raise
        except Exception as error:
            if await self._goes_on(error, entry):
                await self._end_attempt()
                raise moves.Moved from error
            self._failed_start = True
            reason = self.failure_reason(error) or failures.reason(error, self._limit)
            self.log.warning("%s did not come up: %s", self._log_name, reason, exc_info=error)
            await self._end_attempt()
            raise await self._tell_failure(reservation_id, reason) from error
        self._move(Phase.UP)
        return where

    async def _end_attempt(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            await super().stop(now=True)

    async def _goes_on(self, error: Exception, entry: Entry) -> bool:
        """Whether a failed start is tried again: it was planned anew, or its node is to blame."""
        self._attempts += 1
        await self.connection.watch.read(entry)
        again = self.is_by_the_node(error) and self._attempts < moves.ATTEMPTS
        begun = None if self._launch is None else self._launch.reservation
        return again or moves.has_moved(entry.reservation, begun)

    async def _start_while_ours(self, entry: Entry) -> Any:
        """Starts the server; ends the start as soon as the lease is over.

        Whoever waits then reads why. A stop of a pending start, which the service turns to only
        when this does not happen, would leave nothing to read.
        """
        starting = asyncio.create_task(self._start_server(entry.reservation.id))
        try:
            while not starting.done():
                self._still_ours(entry.reservation)
                news = asyncio.create_task(entry.changed())
                try:
                    await asyncio.wait({starting, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
            return await starting
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})

    async def _tell_failure(self, reservation_id: str, reason: str) -> SpawnRefused:
        """Tells the service that the start has failed, before the Hub knows: what the page and the
        reservation say is then the same, and nobody starts this server a second time."""
        report = ServerReport(status="failed", message=reason, milestones=self._steps())
        after = await self.connection.report(reservation_id, report, patience=_FAILURE_PATIENCE)
        if after is not None and moves.is_over(after) and after.reason != reason:
            return ended(after)  # somebody else was faster, and has said why
        return SpawnRefused(reason, status=HTTPStatus.CONFLICT)

    async def _start_server(self, reservation_id: str) -> Any:
        assert self._launch is not None  # noqa: S101 - set by _bring_up
        await self.apply_launch(self._launch)
        self._new = False
        where = await self.run_server()
        self._started, self._ran_at = True, datetime.now(UTC)
        rows.ran(self)
        answering = asyncio.create_task(self._answers(where))
        try:
            said = ServerReport(status="starting", handle=self.server_handle())
            self._still_ours(await self.connection.report(reservation_id, said))
            await answering
        finally:
            answering.cancel()
        steps = [*self._steps(), Milestone(step="lab", at=datetime.now(UTC))]
        self.connection.later(self._report_reachable(reservation_id, steps))
        return where

    async def _report_reachable(self, reservation_id: str, steps: list[Milestone]) -> None:
        """Tells the service that the server runs, once the Hub has its route: whoever hears of it
        earlier finds nothing there. Should the Hub die before, the service sees it by itself."""
        future = cast("asyncio.Task[Any] | None", self._spawn_future)
        if future is not None:
            await asyncio.wait([future])
        if self.ready:
            said = ServerReport(status="running", milestones=steps)
            await self.connection.report(reservation_id, said)

    def _steps(self) -> list[Milestone]:
        begin = [Milestone(step="begin", at=self._began_at)] if self._began_at else []
        return [*begin, *self.milestones()]

    def _move(self, phase: Phase) -> None:
        self._phase = phase
        self._moved.set()
        self._moved = asyncio.Event()

    def _still_ours(self, reservation: Reservation | None) -> None:
        """Refuses to go on where the lease has ended meanwhile; a service that is away ends it by
        itself, so its silence is no reason to stop."""
        if reservation is None:
            return
        if moves.is_over(reservation):
            raise ended(reservation)
        if self._launch is not None and moves.has_moved(reservation, self._launch.reservation):
            raise moves.Moved
        self._reservation = reservation

    async def _answers(self, where: Any) -> None:
        """Returns when the server answers over HTTP; raises as soon as it has died."""
        answer = asyncio.create_task(
            wait_for_http_server(failures.api_url(where, self.server.base_url), self._limit)
        )
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=self.answer_interval)
                status = None if answer.done() else await self.poll()
                if status is not None:
                    raise failures.ServerDied(status)
            await answer
        finally:
            answer.cancel()

    def _cancelled(self) -> None:
        """Somebody ended this start: a person or the service by a stop, or the Hub by stopping.

        Only a person's stop leaves the queue. A Hub that stops leaves everybody in it: the service
        starts their servers when their turn comes.
        """
        future = cast("asyncio.Task[Any] | None", self._spawn_future)
        stopped = future is not None and future.cancelling() == 1
        reservation = self._reservation
        if reservation is None or not stopped or self.connection.hub_is_stopping():
            return
        # The Hub gives us a second to be gone, so the service is told in the background. A server
        # that runs already is ended by the Hub, which calls `stop`.
        if self._phase is Phase.STARTING and (self._failed_start or not self._started):
            self._tell_later(reservation.id, ServerReport(status="stopped"))
        elif self._phase is Phase.WAITING and not self._leaving:
            self._tell_later(reservation.id, ServerReport(status="left"))

    def _tell_later(self, reservation_id: str, report: ServerReport) -> None:
        self.connection.later(self.connection.report(reservation_id, report))

    async def leave(self, who: str) -> None:
        """Cancels the reservation that this start waits for; the caller ends the start.

        Raises:
            SpawnRefused: the service could not be told, so the place in the queue is kept.
        """
        try:
            # Asked anew: after a restart of the Hub nobody waits here, and the queue goes on.
            reservation = await self.connection.live(self.user.name, self.name)
            if reservation is None or reservation.state not in WAITING:
                return  # its turn has come; ending the start stops it
            self._leaving = True
            await self.connection.client.cancel(reservation.id, reason=f"{who} left the queue")
        except errors.GpuDevError as error:
            self._leaving = False
            raise refused(error) from error

    # --- while it runs ------------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """The spawner's environment; what the service says about the lease goes over everything."""
        env: dict[str, str] = super().get_env()
        if self._launch is not None:
            env.update(self._launch.environment)
        return env

    def waiting_view(self) -> dict[str, Any]:
        """What the Hub's waiting page shows before its script has run, or without one."""
        reservation = self._reservation
        waiting = self._phase in (Phase.RESERVING, Phase.WAITING)
        said = message(self._phase, reservation, datetime.now(UTC), self.stage())
        return {
            "name": reservation.name if reservation else "",
            "html": said["html_message"],
            "progress": said["progress"],
            "waiting": waiting,
        }

    async def progress(self) -> AsyncIterator[Message]:
        """The whole state at once, then each change, and a sign of life in between."""
        while True:
            yield message(self._phase, self._reservation, datetime.now(UTC), self.stage())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news(), _PROGRESS_EVERY)

    async def _news(self) -> None:
        """Returns when there is something new to say."""
        phase, reservation = self._phase, self._reservation
        if phase is Phase.WAITING and reservation is not None:
            with self.connection.watch.entry(reservation) as entry:
                # Positions move without an event of their own.
                await self.connection.watch.read(entry, older_than=_PROGRESS_EVERY / 2)
                if entry.reservation == reservation:
                    await entry.changed()
        else:
            await self._moved.wait()

    async def poll(self) -> int | None:
        """None while the server runs, else its exit code."""
        status: int | None = await super().poll()
        return status

    async def stop(self, now: bool = False) -> None:
        """Ends the server; a person's stop gives the GPUs back, the service's own stop is known."""
        reservation = self._reservation
        await super().stop(now)
        if reservation is not None and not self._failed_start and not moves.hub_ends():
            await self._give_back(reservation.id)

    async def delete_forever(self) -> None:
        """Somebody deletes a server that is not running: a lease that it left behind is over."""
        await maybe_future(super().delete_forever())
        try:
            reservation = await self.connection.live(self.user.name, self.name)
        except errors.GpuDevError as error:
            self.log.warning("%s: the service does not answer: %s", self._log_name, error)
            return
        if reservation is not None and reservation.state is State.ACTIVE:
            await self.connection.report(reservation.id, ServerReport(status="stopped"))

    async def _give_back(self, reservation_id: str) -> None:
        try:
            current = await self.connection.client.reservation(reservation_id)
        except errors.NotFound:
            return
        except errors.GpuDevError as error:
            self.log.warning("%s: the service does not answer: %s", self._log_name, error)
        else:
            if moves.is_over(current):
                return
        await self.connection.report(reservation_id, ServerReport(status="stopped"))

    # --- across restarts of the Hub -----------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self._reservation is not None:
            state["gpudev_reservation"] = self._reservation.model_dump(mode="json")
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        kept = state.get("gpudev_reservation")
        if kept:
            self._reservation = Reservation.model_validate(kept)
            self._phase = Phase.UP

    def clear_state(self) -> None:
        super().clear_state()
        self._reservation = None
        self._launch = None

"""Reservations as Python objects.

    with GpuDev().reserve(gpu_type="t4", gpus=1, hours=0.5) as r:
        print(r.time_left)

`with` waits until the lease is active and gives the GPUs back at its end, also after an exception
or Ctrl-C. `AsyncGpuDev` is the same for asyncio (`async with`, `await`). Inside a gpudev server no
configuration is needed; elsewhere `gpu-dev login` makes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from . import _calls, config, errors, interrupts, models
from ._client import AsyncClient, AsyncListing, Client, Listing
from ._flow import collect, invalid, items
from ._steps import Flow
from ._waiting import OnChange, release, wait_until_active, way_in
from .remote import Output, Remote, for_access, run
from .states import LIVE, State


def request_for(**fields: Any) -> models.ReservationRequest:
    """A checked request; InvalidInput names the field that is wrong."""
    try:
        return models.ReservationRequest(**fields)
    except ValidationError as error:
        raise invalid(error) from error


def submit(
    gpu_type: str, gpus: int | None, hours: float | None, fields: dict[str, Any]
) -> Flow[models.Reservation]:
    """Submit a request; without hours it takes the default of the GPU type."""
    if hours is None:
        hours = yield from _default_hours(gpu_type)
    request = request_for(gpu_type=gpu_type, gpus=gpus, hours=hours, **fields)
    return (yield from _calls.reserve(request))


def _default_hours(gpu_type: str) -> Flow[float]:
    listed = _calls.gpu_types()
    types: list[models.GpuType] = yield from collect(items(listed.call, listed.kind))
    for known in types:
        if known.name == gpu_type:
            return known.default_hours
    raise errors.InvalidInput(
        "invalid_input",
        f"There is no GPU type {gpu_type!r}.",
        field="gpu_type",
        accepted=[known.name for known in types],
        status=422,
    )


class _State:
    """What is known of one reservation."""

    def __init__(self, model: models.Reservation) -> None:
        self.model = model

    @property
    def id(self) -> str:
        return self.model.id

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def state(self) -> State:
        """The state as last seen; `refresh()` asks again."""
        return self.model.state

    @property
    def url(self) -> str | None:
        """Opens the server in a browser."""
        return self.model.url

    @property
    def expires_at(self) -> datetime | None:
        """The lease's end in UTC; None before it began."""
        return self.model.expires_at

    @property
    def collaborators(self) -> list[models.Collaborator]:
        """Who is invited, as last seen."""
        return self.model.collaborators

    @property
    def time_left(self) -> timedelta | None:
        """Until the lease's end by this machine's clock; never negative, None before it began."""
        end = self.model.expires_at
        return None if end is None else max(timedelta(0), end - datetime.now(UTC))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state.value}>"


class ReservationHandle(_State):
    """One reservation. `model` holds everything that the service told last."""

    def __init__(self, client: Client, model: models.Reservation) -> None:
        super().__init__(model)
        self._client = client

    def refresh(self) -> Self:
        """Ask for the present state."""
        self.model = self._client.reservation(self.id)
        return self

    def wait(self, timeout: float | None = None, on_change: OnChange | None = None) -> Self:
        """Wait until the lease is active.

        Raises ReservationEnded if it ends instead, WaitTimeout after `timeout` seconds.
        `on_change` is told each new state of the reservation.
        """

        def told(model: models.Reservation) -> None:
            # A caller's own code is interrupted as ever.
            if on_change is not None:
                interrupts.let_in(partial(on_change, model))

        self.model = self._client.transport.run(wait_until_active(self.id, told, timeout))
        return self

    def extend(self, hours: float) -> Self:
        """Extend the lease by `hours`."""
        self.model = self._client.extend(self.id, hours)
        return self

    def add_user(self, user: str, role: models.Role = "use", until: datetime | None = None) -> Self:
        """Invite another user of the Hub: to `view` the reservation, or to `use` its server, in
        the browser and by SSH. The invitation ends at `until`, or with the lease."""
        self.model = self._client.invite(self.id, user, role, until)
        return self

    def remove_user(self, user: str) -> Self:
        """Take an invitation back; whoever is connected is out within seconds."""
        self.model = self._client.uninvite(self.id, user)
        return self

    def cancel(self) -> Self:
        """Give the GPUs back now; nothing happens to a reservation that is over."""
        self.model = self._client.transport.run(release(self.id))
        return self

    def history(self) -> Listing[models.HistoryEntry]:
        """What happened to it, with reasons."""
        return self._client.history(self.id)

    def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes | str | None = None,
        timeout: float | None = None,
    ) -> Output:
        """Run a program on the server, by SSH, in the home directory.

        A text is the shell's own language, a list is a program with its arguments. Waits for a
        server that is still starting. RemoteError when there is no connection; any other exit code
        is the program's.
        """
        return run(self._remote(), command, stdin, timeout)

    def upload(self, local: str | Path, remote: str = ".") -> int:
        """Copy a file, or a folder's contents, to the server; how many files that were.

        `remote` is below the home directory unless it begins with `/`. What `.gpudevignore` names,
        or what git ignores, stays behind.
        """
        return self._remote().upload(Path(local), remote)

    def download(self, remote: str, local: str | Path = ".") -> int:
        """Copy a file, or a folder's contents, from the server; how many files that were."""
        return self._remote().download(remote, Path(local))

    def _remote(self) -> Remote:
        access = self._client.transport.run(way_in(self.id))
        return for_access(access, self._client.url, self._client.environment)

    def __enter__(self) -> Self:
        try:
            return self.wait()
        except BaseException as error:
            # `__exit__` does not run when entering fails: the place in the queue would stay.
            self._give_back(error)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.cancel()
        else:
            self._give_back(error)

    def _give_back(self, error: BaseException) -> None:
        try:
            self.cancel()
        except errors.GpuDevError as second:
            error.add_note(f"Reservation {self.id} could not be cancelled: {second}")


class AsyncReservationHandle(_State):
    """One reservation, for asyncio."""

    def __init__(self, client: AsyncClient, model: models.Reservation) -> None:
        super().__init__(model)
        self._client = client

    async def refresh(self) -> Self:
        """Ask for the present state."""
        self.model = await self._client.reservation(self.id)
        return self

    async def wait(self, timeout: float | None = None, on_change: OnChange | None = None) -> Self:  # noqa: ASYNC109
        """Wait until the lease is active; see `ReservationHandle.wait`."""
        flow = wait_until_active(self.id, on_change, timeout)
        self.model = await self._client.transport.run(flow)
        return self

    async def extend(self, hours: float) -> Self:
        """Extend the lease by `hours`."""
        self.model = await self._client.extend(self.id, hours)
        return self

    async def add_user(
        self, user: str, role: models.Role = "use", until: datetime | None = None
    ) -> Self:
        """Invite another user of the Hub; see `ReservationHandle.add_user`."""
        self.model = await self._client.invite(self.id, user, role, until)
        return self

    async def remove_user(self, user: str) -> Self:
        """Take an invitation back; whoever is connected is out within seconds."""
        self.model = await self._client.uninvite(self.id, user)
        return self

    async def cancel(self) -> Self:
        """Give the GPUs back now; nothing happens to a reservation that is over."""
        self.model = await self._client.transport.run(release(self.id))
        return self

    def history(self) -> AsyncListing[models.HistoryEntry]:
        """What happened to it, with reasons."""
        return self._client.history(self.id)

    async def exec(
        self, command: str | Sequence[str], *, stdin: bytes | str | None = None
    ) -> Output:
        """Run a program on the server; see `ReservationHandle.exec`."""
        return await asyncio.to_thread(run, await self._remote(), command, stdin, None)

    async def upload(self, local: str | Path, remote: str = ".") -> int:
        """Copy a file or a folder to the server; see `ReservationHandle.upload`."""
        return await asyncio.to_thread((await self._remote()).upload, Path(local), remote)

    async def download(self, remote: str, local: str | Path = ".") -> int:
        """Copy a file or a folder from the server; see `ReservationHandle.download`."""
        return await asyncio.to_thread((await self._remote()).download, remote, Path(local))

    async def _remote(self) -> Remote:
        access = await self._client.transport.run(way_in(self.id))
        return for_access(access, self._client.url, self._client.environment)

    async def __aenter__(self) -> Self:
        try:
            return await self.wait()
        except BaseException as error:
            await self._give_back(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.cancel()
        else:
            await self._give_back(error)

    async def _give_back(self, error: BaseException) -> None:
        try:
            await self.cancel()
        except errors.GpuDevError as second:
            error.add_note(f"Reservation {self.id} could not be cancelled: {second}")


class GpuDev:
    """A GPU reservation service.

    Args:
        url: address of the Hub or the service; by default from the configuration.
        token: a Hub token; by default from the configuration.

    `client` has every call of the REST API.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        http: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        settings = config.load(url, token)
        self.client = Client(settings.url, settings.token, http=http, pause=pause)

    def reserve(
        self,
        gpu_type: str,
        gpus: int | None = None,
        hours: float | None = None,
        **fields: Any,
    ) -> ReservationHandle:
        """Submit a request; the answer is a reservation that may still wait in the queue.

        `fields` are those of `ReservationRequest`: `disk`, `create_disk`, `name`, `starts_at` ...
        """
        made = self.client.transport.run(submit(gpu_type, gpus, hours, fields))
        return ReservationHandle(self.client, made)

    def reservation(self, reservation_id: str) -> ReservationHandle:
        """One reservation by its id."""
        return ReservationHandle(self.client, self.client.reservation(reservation_id))

    def reservations(self, states: Collection[State | str] = LIVE) -> list[ReservationHandle]:
        """The caller's reservations and those shared with them, newest first; without `states`
        those that live."""
        found = self.client.reservations(states=states)
        return [ReservationHandle(self.client, model) for model in found]

    def availability(self, hours: float | None = None) -> list[models.Availability]:
        """What is free now, and the earliest starts."""
        return self.client.availability(hours).all()

    def gpu_types(self) -> list[models.GpuType]:
        """The GPU types that the caller may use."""
        return self.client.gpu_types().all()

    def disks(self) -> list[models.Disk]:
        """The caller's disks."""
        return self.client.disks().all()

    def ssh_keys(self) -> list[models.SshKey]:
        """The caller's public SSH keys."""
        return self.client.ssh_keys(self.client.me().name).items

    def add_ssh_key(self, line: str) -> list[models.SshKey]:
        """Add a public SSH key, given as a line of a `.pub` file."""
        return self.client.add_ssh_keys([line]).items

    def remove_ssh_key(self, which: str) -> list[models.SshKey]:
        """Remove a key by its fingerprint or its comment."""
        return self.client.remove_ssh_key(which).items

    def cluster(self, queue: int | None = None) -> models.Cluster:
        """All nodes, and of each queue the first `queue` (50, at most 200) and as many of the
        caller's own behind them."""
        return self.client.cluster(queue)

    def close(self) -> None:
        """Give the connections back; reservations go on."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncGpuDev:
    """The same as `GpuDev`, for asyncio."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        http: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        settings = config.load(url, token)
        self.client = AsyncClient(settings.url, settings.token, http=http, pause=pause)

    async def reserve(
        self,
        gpu_type: str,
        gpus: int | None = None,
        hours: float | None = None,
        **fields: Any,
    ) -> AsyncReservationHandle:
        """Submit a request: `async with await gpudev.reserve(...) as r:`."""
        made = await self.client.transport.run(submit(gpu_type, gpus, hours, fields))
        return AsyncReservationHandle(self.client, made)

    async def reservation(self, reservation_id: str) -> AsyncReservationHandle:
        """One reservation by its id."""
        return AsyncReservationHandle(self.client, await self.client.reservation(reservation_id))

    async def reservations(
        self, states: Collection[State | str] = LIVE
    ) -> list[AsyncReservationHandle]:
        """The caller's reservations and those shared with them, newest first; without `states`
        those that live."""
        found = await self.client.reservations(states=states).all()
        return [AsyncReservationHandle(self.client, model) for model in found]

    async def availability(self, hours: float | None = None) -> list[models.Availability]:
        """What is free now, and the earliest starts."""
        return await self.client.availability(hours).all()

    async def gpu_types(self) -> list[models.GpuType]:
        """The GPU types that the caller may use."""
        return await self.client.gpu_types().all()

    async def disks(self) -> list[models.Disk]:
        """The caller's disks."""
        return await self.client.disks().all()

    async def ssh_keys(self) -> list[models.SshKey]:
        """The caller's public SSH keys."""
        return (await self.client.ssh_keys((await self.client.me()).name)).items

    async def add_ssh_key(self, line: str) -> list[models.SshKey]:
        """Add a public SSH key, given as a line of a `.pub` file."""
        return (await self.client.add_ssh_keys([line])).items

    async def remove_ssh_key(self, which: str) -> list[models.SshKey]:
        """Remove a key by its fingerprint or its comment."""
        return (await self.client.remove_ssh_key(which)).items

    async def cluster(self, queue: int | None = None) -> models.Cluster:
        """All nodes, and of each queue the first `queue` (50, at most 200) and as many of the
        caller's own behind them."""
        return await self.client.cluster(queue)

    async def close(self) -> None:
        """Give the connections back; reservations go on."""
        await self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

"""`Client` and `AsyncClient`: the calls of `_calls`, bound once for both.

A call is a descriptor: reached through a `Client` it runs at once, through an `AsyncClient` it
returns a coroutine, and lists give a `Listing` or an `AsyncListing`. Type checkers see both.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx
from pydantic import BaseModel

from . import _calls, models
from ._calls import Listed
from ._flow import collect, items, page
from ._steps import Flow
from ._transport import AsyncTransport, SyncTransport, Timeouts

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Listing(Generic[M]):
    """A list of the service. Iterating fetches page after page as they are needed."""

    def __init__(self, transport: SyncTransport, listed: Listed[M]) -> None:
        self._transport = transport
        self._listed = listed

    def __iter__(self) -> Iterator[M]:
        return self._transport.iterate(items(self._listed.call, self._listed.kind))

    def all(self) -> list[M]:
        """Everything at once."""
        return list(self)

    def page(self, limit: int | None = None, cursor: str | None = None) -> models.Page[M]:
        """One page; `cursor` is the `next_cursor` of the page before."""
        return self._transport.run(page(self._listed.call, self._listed.kind, limit, cursor))


class AsyncListing(Generic[M]):
    """A list of the service, for `async for`."""

    def __init__(self, transport: AsyncTransport, listed: Listed[M]) -> None:
        self._transport = transport
        self._listed = listed

    def __aiter__(self) -> AsyncIterator[M]:
        return self._transport.iterate(items(self._listed.call, self._listed.kind))

    async def all(self) -> list[M]:
        """Everything at once."""
        return await self._transport.run(collect(items(self._listed.call, self._listed.kind)))

    async def page(self, limit: int | None = None, cursor: str | None = None) -> models.Page[M]:
        """One page; `cursor` is the `next_cursor` of the page before."""
        return await self._transport.run(page(self._listed.call, self._listed.kind, limit, cursor))


class _OneCall(Generic[P, T]):
    """A call with one answer."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: _SyncCalls, kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, owner: _AsyncCalls, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, owner: _SyncCalls | _AsyncCalls | None, kind: type) -> Any:
        if owner is None:
            return self
        flow = self._flow
        if isinstance(owner, _SyncCalls):
            sync = owner.transport

            @functools.wraps(flow)
            def bound(*args: P.args, **kwargs: P.kwargs) -> T:
                return sync.run(flow(*args, **kwargs))

            return bound
        transport = owner.transport

        @functools.wraps(flow)
        async def abound(*args: P.args, **kwargs: P.kwargs) -> T:
            return await transport.run(flow(*args, **kwargs))

        return abound


class _ListCall(Generic[P, M]):
    """A call whose answer is a paginated list."""

    def __init__(self, listed: Callable[P, Listed[M]]) -> None:
        self._listed = listed
        self.__doc__ = listed.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: _SyncCalls, kind: type) -> Callable[P, Listing[M]]: ...
    @overload
    def __get__(self, owner: _AsyncCalls, kind: type) -> Callable[P, AsyncListing[M]]: ...
    def __get__(self, owner: _SyncCalls | _AsyncCalls | None, kind: type) -> Any:
        if owner is None:
            return self
        listed = self._listed

        @functools.wraps(listed)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Listing[M] | AsyncListing[M]:
            if isinstance(owner, _SyncCalls):
                return Listing(owner.transport, listed(*args, **kwargs))
            return AsyncListing(owner.transport, listed(*args, **kwargs))

        return bound


class _StreamCall(Generic[P]):
    """A call that follows a stream of events."""

    def __init__(self, flow: Callable[P, Flow[None]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: _SyncCalls, kind: type) -> Callable[P, Iterator[models.Event]]: ...
    @overload
    def __get__(
        self, owner: _AsyncCalls, kind: type
    ) -> Callable[P, AsyncIterator[models.Event]]: ...
    def __get__(self, owner: _SyncCalls | _AsyncCalls | None, kind: type) -> Any:
        if owner is None:
            return self
        transport, flow = owner.transport, self._flow

        @functools.wraps(flow)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            return transport.iterate(flow(*args, **kwargs))

        return bound


def _environment(url: str, token: str | None) -> dict[str, str]:
    return {"GPUDEV_URL": url, **({"GPUDEV_TOKEN": token} if token else {})}


class _Calls:
    """The API. Arguments and answers are those of the functions in `_calls`."""

    health = _OneCall(_calls.health)
    me = _OneCall(_calls.me)
    cluster = _OneCall(_calls.cluster)
    exchange_login_code = _OneCall(_calls.exchange_login_code)

    gpu_types = _ListCall(_calls.gpu_types)
    availability = _ListCall(_calls.availability)
    begin_maintenance = _OneCall(_calls.begin_maintenance)
    end_maintenance = _OneCall(_calls.end_maintenance)
    drain = _OneCall(_calls.drain)
    undrain = _OneCall(_calls.undrain)

    plan = _OneCall(_calls.plan)
    reserve = _OneCall(_calls.reserve)
    reservation = _OneCall(_calls.reservation)
    reservations = _ListCall(_calls.reservations)
    cancel = _OneCall(_calls.cancel)
    extension = _OneCall(_calls.extension)
    extend = _OneCall(_calls.extend)
    history = _ListCall(_calls.history)
    events = _StreamCall(_calls.events)
    launch = _OneCall(_calls.launch)
    report_server = _OneCall(_calls.report_server)

    invite = _OneCall(_calls.invite)
    uninvite = _OneCall(_calls.uninvite)
    ssh_keys = _OneCall(_calls.ssh_keys)
    replace_ssh_keys = _OneCall(_calls.replace_ssh_keys)
    add_ssh_keys = _OneCall(_calls.add_ssh_keys)
    remove_ssh_key = _OneCall(_calls.remove_ssh_key)
    ssh_access = _OneCall(_calls.ssh_access)
    snapshot_lease = _OneCall(_calls.snapshot_lease)
    lab = _OneCall(_calls.lab)
    redeem_ssh_ticket = _OneCall(_calls.redeem_ssh_ticket)
    report_ssh_host = _OneCall(_calls.report_ssh_host)
    report_closing = _OneCall(_calls.report_closing)
    report_activity = _OneCall(_calls.report_activity)
    keep = _OneCall(_calls.keep)

    disks = _ListCall(_calls.disks)
    disk = _OneCall(_calls.disk)
    create_disk = _OneCall(_calls.create_disk)
    rename_disk = _OneCall(_calls.rename_disk)
    resize_disk = _OneCall(_calls.resize_disk)
    delete_disk = _OneCall(_calls.delete_disk)
    restore_disk = _OneCall(_calls.restore_disk)
    clone_disk = _OneCall(_calls.clone_disk)
    snapshots = _ListCall(_calls.snapshots)
    take_snapshot = _OneCall(_calls.take_snapshot)
    disk_contents = _ListCall(_calls.disk_contents)


class _SyncCalls(_Calls):
    transport: SyncTransport


class _AsyncCalls(_Calls):
    transport: AsyncTransport


class Client(_SyncCalls):
    """The REST API, call by call.

    Args:
        url: the service's address, as `config.service_url` makes it.
        token: a Hub token; None calls only what is public.
        timeouts: in seconds.
        http: another httpx transport than the network.
        pause: how to wait between tries.

    Calls raise the errors of `gpudev_client.errors`. Use it as a context manager or `close()` it.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        http: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        self.url = url
        self.transport = SyncTransport(url, token, timeouts=timeouts, http=http, pause=pause)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process finds the same service by, as the same person."""
        return _environment(self.url, self.transport.token)

    def close(self) -> None:
        """Give the connections back."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class AsyncClient(_AsyncCalls):
    """The same as `Client`, for asyncio: calls are awaited, lists and events iterated with
    `async for`. An instance belongs to one event loop."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        http: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.url = url
        self.transport = AsyncTransport(url, token, timeouts=timeouts, http=http, pause=pause)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process finds the same service by, as the same person."""
        return _environment(self.url, self.transport.token)

    async def close(self) -> None:
        """Give the connections back."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

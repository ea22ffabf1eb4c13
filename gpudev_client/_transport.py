"""The only place that touches the network, and the one seam of the client.

Redirects are not followed, so a token never travels to another address. Answers are read with a
limit on size and on time. What httpx raises becomes `Unreachable`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from . import errors, interrupts, trust
from ._aside import Aside
from ._steps import Call, Emit, Flow, Pause, Read, Reply, Step

T = TypeVar("T")

#: The path of the API below the service's address.
API_PATH = "/api/v1"
#: Most bytes of one answer, and most seconds for all of it.
ANSWER_MAX = 32 * 1024 * 1024
#: Calls of one async client under way at the same time; the others wait their turn. No more than
#: httpx keeps connections open for (20): it closes the others after each answer, and looks through
#: all that wait whenever one is done.
_AT_ONCE = 20
#: Seconds without a byte after which a stream of events counts as cut. The service sends a sign of
#: life far more often.
STREAM_SILENCE = 60.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: to connect, between two reads, and for a whole answer."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 60.0

    @property
    def ordinary(self) -> httpx.Timeout:
        return httpx.Timeout(self.read, connect=self.connect)

    def streaming(self, silence: float | None) -> httpx.Timeout:
        longest = STREAM_SILENCE if silence is None else min(STREAM_SILENCE, silence)
        return httpx.Timeout(self.read, connect=self.connect, read=longest)


def _options(url: str, token: str | None, timeouts: Timeouts) -> dict[str, Any]:
    headers = {"User-Agent": "gpudev-client"}
    if token:
        headers["Authorization"] = f"token {token}"
    return {
        "base_url": url + API_PATH,
        "headers": headers,
        "timeout": timeouts.ordinary,
        "follow_redirects": False,
        # A proxy from the environment must not see what stays on this machine.
        "trust_env": not _is_loopback(url),
        # Only what is surely without TLS goes without; however "https" is written.
        "verify": urlsplit(url).scheme != "http" and trust.context(),
    }


def _token(http: httpx.Client | httpx.AsyncClient) -> str | None:
    # Kept in one place only, whose representation hides it.
    header = http.headers.get("Authorization")
    return header.removeprefix("token ") if header else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _request(
    http: httpx.Client | httpx.AsyncClient, call: Call, timeouts: Timeouts
) -> httpx.Request:
    return http.build_request(
        call.method,
        call.path,
        params=list(call.params),
        content=call.body,
        headers=dict(call.headers),
        timeout=timeouts.streaming(call.silence) if call.stream else timeouts.ordinary,
    )


def _reply(response: httpx.Response, body: bytes = b"") -> Reply:
    return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)


def _unreachable(error: httpx.HTTPError | httpx.InvalidURL) -> errors.Unreachable:
    # The class says what happened; httpx's own text may carry an address with a query.
    if isinstance(error, httpx.TimeoutException):
        return errors.Unreachable("The service did not answer in time.")
    if isinstance(error, httpx.ConnectError):
        return errors.Unreachable("The service cannot be reached; is the address right?")
    return errors.Unreachable("The connection to the service broke off.")


class _Body:
    """Gathers an answer within its limits."""

    def __init__(self, seconds: float) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._end = time.monotonic() + seconds

    def add(self, chunk: bytes) -> None:
        self._parts.append(chunk)
        self._size += len(chunk)
        if self._size > ANSWER_MAX:
            raise errors.ServerFault("The service's answer is too long.")
        if time.monotonic() > self._end:
            raise errors.Unreachable("The service did not finish its answer in time.")

    def joined(self) -> bytes:
        return b"".join(self._parts)


class SyncTransport:
    """Drives flows with an `httpx.Client`. `http` and `pause` stand in for network and clock."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeouts: Timeouts | None = None,
        http: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._pause = pause or time.sleep
        self._http = httpx.Client(transport=http, **_options(url, token, self._timeouts))

    @property
    def token(self) -> str | None:
        """The token in use."""
        return _token(self._http)

    def close(self) -> None:
        self._http.close()

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end; what it emits is dropped."""
        driven = self.iterate(flow)
        while True:
            try:
                next(driven)
            except StopIteration as done:
                value: T = done.value
                return value

    def iterate(self, flow: Flow[T]) -> Generator[Any, None, T]:
        """What a flow emits, as it is asked for; returns what the flow returns."""
        stream, aside = _SyncStream(), Aside()
        try:
            step = _advanced(partial(next, flow))
            while not isinstance(step, _Returned):
                if isinstance(step, Emit):
                    yield step.value
                    step = _advanced(partial(next, flow))
                    continue
                try:
                    answer = aside.do(partial(self._perform, step, stream))
                except errors.Unreachable as error:
                    step = _advanced(partial(flow.throw, error))
                else:
                    step = _advanced(partial(flow.send, answer))
            result: T = step.value
            return result
        finally:
            flow.close()
            aside.end(stream.close)

    def _perform(self, step: Call | Read | Pause, stream: _SyncStream) -> Reply | bytes | None:
        try:
            if isinstance(step, Pause):
                self._pause(step.seconds)
                return None
            if isinstance(step, Read):
                return stream.read()
            return self._call(step, stream)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(error) from error

    def _call(self, call: Call, stream: _SyncStream) -> Reply:
        stream.close()
        response = self._http.send(_request(self._http, call, self._timeouts), stream=True)
        if call.stream and response.is_success:
            stream.take(response)
            return _reply(response)
        body = _Body(self._timeouts.total)
        try:
            for chunk in response.iter_bytes():
                body.add(chunk)
        finally:
            response.close()
        return _reply(response, body.joined())


@dataclass(frozen=True, slots=True)
class _Returned:
    """What a flow came to."""

    value: Any


def _advanced(advance: Callable[[], Step]) -> Step | _Returned:
    """The next step of a flow. Until it is waited for Ctrl-C is held back: models are built at
    their first use, which does not survive it."""
    with interrupts.held():
        try:
            return advance()
        except StopIteration as done:
            return _Returned(done.value)


class _SyncStream:
    """The one stream that a flow may have open."""

    def __init__(self) -> None:
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def take(self, response: httpx.Response) -> None:
        self._response, self._chunks = response, response.iter_bytes()

    def read(self) -> bytes:
        return next(self._chunks, b"")

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


class AsyncTransport:
    """Drives flows with an `httpx.AsyncClient`."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeouts: Timeouts | None = None,
        http: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._pause = pause or asyncio.sleep
        self._http = httpx.AsyncClient(transport=http, **_options(url, token, self._timeouts))
        self._turns = asyncio.Semaphore(_AT_ONCE)

    @property
    def token(self) -> str | None:
        """The token in use."""
        return _token(self._http)

    async def close(self) -> None:
        await self._http.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end; what it emits is dropped."""
        results: list[T] = []
        async for _ in self.iterate(flow, results.append):
            pass
        return results[0]

    async def iterate(
        self, flow: Flow[T], returned: Callable[[T], None] = lambda _: None
    ) -> AsyncGenerator[Any, None]:
        """What a flow emits, as it is asked for; `returned` is told what the flow returns."""
        stream = _AsyncStream()
        answer: Reply | bytes | None = None
        try:
            step = next(flow)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = next(flow)
                    continue
                try:
                    answer = await self._perform(step, stream)
                except errors.Unreachable as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as done:
            returned(done.value)
        finally:
            flow.close()
            await stream.close()

    async def _perform(
        self, step: Call | Read | Pause, stream: _AsyncStream
    ) -> Reply | bytes | None:
        try:
            if isinstance(step, Pause):
                await self._pause(step.seconds)
                return None
            if isinstance(step, Read):
                return await stream.read()
            return await self._call(step, stream)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(error) from error

    async def _call(self, call: Call, stream: _AsyncStream) -> Reply:
        await stream.close()
        if call.stream:
            return await self._answer(call, stream)
        try:
            async with asyncio.timeout(self._timeouts.read):
                await self._turns.acquire()
        except TimeoutError as error:
            raise errors.Unreachable("The service did not answer in time.") from error
        try:
            return await self._answer(call, stream)
        finally:
            self._turns.release()

    async def _answer(self, call: Call, stream: _AsyncStream) -> Reply:
        response = await self._http.send(_request(self._http, call, self._timeouts), stream=True)
        if call.stream and response.is_success:
            stream.take(response)
            return _reply(response)
        body = _Body(self._timeouts.total)
        try:
            async for chunk in response.aiter_bytes():
                body.add(chunk)
        finally:
            await response.aclose()
        return _reply(response, body.joined())


class _AsyncStream:
    """The one stream that a flow may have open."""

    def __init__(self) -> None:
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    def take(self, response: httpx.Response) -> None:
        self._response, self._chunks = response, response.aiter_bytes()

    async def read(self) -> bytes:
        return b"" if self._chunks is None else await anext(self._chunks, b"")

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None

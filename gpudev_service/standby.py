"""What a replica that stands by does with requests: it passes them on to the one that leads.

So every replica can be asked, all of them are ready in the eyes of Kubernetes, and everything that
a service keeps in memory (events, tickets, work under way) is in one process. A request that comes
while nobody leads waits for whoever will. One that was passed on to a leader that is followed by
another is cut: its caller repeats it, which does nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import httpx
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.routing import Router
from tornado.web import Application, RequestHandler, stream_request_body

from .leading import Leading
from .pages.base import PageHandler

log = logging.getLogger(__name__)

#: Seconds that a request waits for somebody who leads.
PATIENCE = 15.0
#: Says that a request comes from another replica.
PASSED_ON = "X-Gpudev-Passed-On"
#: What a form may have, and more than any call has: of what is larger so much is enough for the
#: leader to refuse it.
_BODY_MAX = PageHandler.body_max
_CONNECT = 2.0
#: What concerns one connection and not the next (RFC 9110, 7.6.1).
_HOPS = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Standby:
    """Passes requests on to the leader."""

    def __init__(self, leading: Leading) -> None:
        self.leading = leading
        self.http = httpx.AsyncClient(
            trust_env=False,
            timeout=httpx.Timeout(None, connect=_CONNECT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )
        self.under_way: set[asyncio.Task[None]] = set()

    async def watch(self) -> None:
        """Cuts what was passed on to a leader that has been followed; without end."""
        while True:
            await self.leading.changed(3600)
            for task in tuple(self.under_way):
                task.cancel()

    async def idle(self, seconds: float) -> None:
        """Waits until nothing is under way, at most `seconds`: streams do not end by themselves."""
        if self.under_way:
            await asyncio.wait(tuple(self.under_way), timeout=seconds)

    async def close(self) -> None:
        for task in tuple(self.under_way):
            task.cancel()
        await self.http.aclose()


class Switch(Router):
    """Gives requests to this replica's own application while it leads; before, only those for
    `own_paths`, which are about the replica itself."""

    def __init__(self, own: Application, standby: Standby, own_paths: Iterable[str]) -> None:
        self._own, self._paths = own, frozenset(own_paths)
        self._standby = standby
        self._passing = Application(
            [(".*", PassOn, {"standby": standby})], log_function=lambda _: None
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        mine = self._standby.leading.leads or request.path in self._paths
        return (self._own if mine else self._passing).find_handler(request, **kwargs)


@stream_request_body
class PassOn(RequestHandler):
    """One request that is passed on, and its answer that is passed back."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

    def initialize(self, standby: Standby) -> None:
        self.standby = standby
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None

    def set_default_headers(self) -> None:
        for name in ("Server", "Content-Type", "Date"):
            self.clear_header(name)

    def check_xsrf_cookie(self) -> None:
        """The leader does."""

    def prepare(self) -> None:
        if PASSED_ON in self.request.headers:
            # From one that believes this replica to lead: not in circles.
            self._unavailable()

    def data_received(self, chunk: bytes) -> None:
        if len(self._body) <= _BODY_MAX:
            self._body += chunk

    async def _pass_on(self, *_: str) -> None:
        self._task = asyncio.create_task(self._relay())
        self.standby.under_way.add(self._task)
        try:
            await asyncio.wait([self._task])
        finally:
            self.standby.under_way.discard(self._task)
        if self._task.cancelled() or self._task.exception() is not None:
            self._cut()

    get = head = post = put = patch = delete = options = _pass_on

    def on_connection_close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _relay(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while (left := deadline - loop.time()) > 0:
            address = self.standby.leading.address
            if address is not None:
                try:
                    await self._answered_by(address)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    pass  # nothing was sent: whoever leads next may be asked
                else:
                    return
            await self.standby.leading.changed(min(left, 0.2))
        self._unavailable()

    async def _answered_by(self, address: str) -> None:
        request = self.standby.http.build_request(
            self.request.method or "GET",
            address.rstrip("/") + self.request.uri if self.request.uri else address,
            headers=self._to_send(),
            content=bytes(self._body) or None,
        )
        answer = await self.standby.http.send(request, stream=True)
        try:
            self.set_status(answer.status_code, answer.reason_phrase)
            for name, value in answer.headers.multi_items():
                if name.lower() not in _HOPS:
                    self.add_header(name, value)
            await self.flush()
            async for chunk in answer.aiter_raw():
                self.write(chunk)
                await self.flush()
        finally:
            await answer.aclose()

    def _to_send(self) -> list[tuple[str, str]]:
        given = self.request.headers
        kept = [(name, value) for name, value in given.get_all() if name.lower() not in _HOPS]
        kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
        # Who asks is told by whoever comes first; the leader decides what of it it believes.
        if "X-Forwarded-For" not in given:
            kept.append(("X-Forwarded-For", self.request.remote_ip or ""))
        return [*kept, (PASSED_ON, "1")]

    def _unavailable(self) -> None:
        self.clear()
        self.set_status(503)
        self.set_header("Retry-After", "1")
        self.finish(
            {
                "error": {
                    "code": "unavailable",
                    "message": "The service is changing over; try again in a moment.",
                }
            }
        )

    def _cut(self) -> None:
        """Says that it did not work, or, where an answer has begun, ends it so that it shows."""
        task = self._task
        if task is not None and not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, httpx.HTTPError | StreamClosedError):
                raise error
            log.info("a request that was passed on broke off: %s", type(error).__name__)
        if not self._headers_written:
            self._unavailable()
        elif not self._finished:
            self._finished = True
            connection: Any = self.request.connection
            connection.stream.close()

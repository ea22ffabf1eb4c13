"""A proxy between the service and the API server that breaks watches in the ways that networks,
load balancers and stale caches do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from gpudev_service.kube.connection import Kube, end

#: How it can break. `half-open`: connections stand, and nothing comes through, new ones are taken
#: and get no answer. `half-open watches`: the same for watches only. `cut`: every connection is
#: broken, new ones too. `expired`: watches are told that their version is too old. `replayed`:
#: watches are told again what they were told before, and nothing new. `stale`: watches are expired,
#: and lists are those of before.
FAULTS = ("half-open", "half-open watches", "cut", "expired", "replayed", "stale")


class Proxy:
    """Relays, and remembers what it relayed."""

    def __init__(self, upstream: Kube) -> None:
        self._upstream = upstream
        self.fault: str | None = None
        #: Beginnings of paths that the API server does not know, as where a CRD is not installed.
        self.unknown: tuple[str, ...] = ()
        self._moved = asyncio.Event()
        self._events: dict[str, list[bytes]] = {}
        self._lists: dict[str, bytes] = {}
        self.requests = 0

    def become(self, fault: str | None) -> None:
        self.fault = fault
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.unknown and request.path.startswith(self.unknown):
            return web.Response(text="404 page not found\n", status=404)
        watch = "watch" in request.query
        if self.fault == "half-open" or (self.fault == "half-open watches" and watch):
            await self._moved.wait()
            return _broken(request)
        if self.fault == "cut":
            return _broken(request)
        if watch:
            return await self._watch_in_fault(request)
        if self.fault == "stale" and request.path in self._lists:
            return web.Response(body=self._lists[request.path], content_type="application/json")
        return await self._call(request)

    async def _watch_in_fault(self, request: web.Request) -> web.StreamResponse:
        if self.fault in {"expired", "stale"}:
            body = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            return web.json_response(body, status=410)
        if self.fault == "replayed":
            return await self._replay(request, self._moved)
        return await self._watch(request)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        async with self._ask(request) as answer:
            body = await answer.read()
            if answer.status == 200 and request.method == "GET" and "limit" in request.query:
                self._lists.setdefault(request.path, body)
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        async with self._ask(request) as answer:
            if answer.status != 200:
                return web.Response(body=await answer.read(), status=answer.status)
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                line = asyncio.create_task(answer.content.readline())
                if not await self._undisturbed(line):
                    line.cancel()
                    return await self._broken_off(request)
                if not line.result():
                    return response
                self._events.setdefault(request.path, []).append(line.result())
                await response.write(line.result())

    async def _undisturbed(self, line: asyncio.Task[bytes]) -> bool:
        """Waits for the next line; False where a fault comes before it."""
        while self.fault in {None, "expired", "stale"}:
            moved = asyncio.create_task(self._moved.wait())
            await asyncio.wait({line, moved}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
            if line.done():
                return True
        return False

    async def _broken_off(self, request: web.Request) -> web.StreamResponse:
        while self.fault is not None and self.fault != "cut":
            await self._moved.wait()
        return _broken(request)

    async def _replay(self, request: web.Request, moved: asyncio.Event) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self._events.get(request.path, ()):
            if json.loads(line).get("type") != "ERROR":
                await response.write(line)
        await moved.wait()
        return _broken(request)

    @asynccontextmanager
    async def _ask(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self._upstream.configuration.host}{request.path}"
        session: aiohttp.ClientSession = self._upstream.rest_client.pool_manager
        answer = await session.request(
            request.method,
            url,
            params=request.query,
            data=await request.read(),
            headers={"Content-Type": request.content_type, "Accept": "application/json"},
        )
        try:
            yield answer
        finally:
            end(answer)


def _broken(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


@asynccontextmanager
async def proxy(upstream: Kube) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy and its address."""
    made = Proxy(upstream)
    application = web.Application(client_max_size=8 * 2**20)
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield made, f"http://127.0.0.1:{port}"
    finally:
        made.become("cut")
        await runner.cleanup()

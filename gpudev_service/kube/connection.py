"""One connection to the API server: credentials, time limits, and what its answers mean.

Objects are plain dicts as they are on the wire. The generated models would cost far more time and
memory than a fleet of thousands of nodes allows, and know nothing of custom resources.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import orjson
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import (
    ConfigException,
    load_incluster_config,
    load_kube_config,
)

from gpudev_service.clock import elapsed
from gpudev_service.settings import Settings

from .refusals import KubeAway, KubeRefused, NoCredentials, Object

Query = Mapping[str, str | int]

#: Seconds that a call may take, its answer included, and the opening of a connection.
CALL = 10.0
CONNECT = 4.0
#: How often a read is tried: once more where a connection that had been idle was gone.
READS = 2
#: Bytes. An object of a cluster has a megabyte and a half at most.
LONGEST_LINE = 4 * 2**20
#: Most connections at once.
CONNECTIONS = 32
#: Who asks, in the API server's audit log.
AGENT = f"gpudev (process {os.getpid()})"
#: Statuses by which the API server says that it cannot answer now.
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_ERRORS_FROM = 400


class Kube(ApiClient):
    """An `ApiClient` with calls that take and return plain dicts, within time limits."""

    #: Asked before each call that changes something.
    may_act: Callable[[], bool] = staticmethod(lambda: True)
    #: Told the header `Date` of each answer, and when it was asked for.
    hears: Callable[[str | None, float], None] | None = None

    async def get(self, path: str, query: Query | None = None, within: float = CALL) -> Object:
        """Reads an object or a list.

        Raises:
            KubeAway, KubeRefused: it could not be read.
        """
        for _ in range(READS - 1):
            try:
                return await self._call("GET", path, query=query, within=within)
            except _ConnectionLost:
                continue
        return await self._call("GET", path, query=query, within=within)

    async def create(self, path: str, body: Object) -> Object:
        """Makes an object of a collection; `AlreadyExists` is a refusal like any other."""
        return await self._call("POST", path, body=body)

    async def patch(self, path: str, body: Object) -> Object:
        """Changes an object by a JSON merge patch."""
        return await self._call("PATCH", path, body=body, kind="application/merge-patch+json")

    async def delete(self, path: str, options: Object | None = None) -> bool:
        """Deletes an object; False where there was none."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **(options or {})}
        try:
            await self._call("DELETE", path, body=body)
        except KubeRefused as refusal:
            if refusal.status == 404:  # noqa: PLR2004 - not found
                return False
            raise
        return True

    @asynccontextmanager
    async def lines(
        self, path: str, query: Query, rest: float = 0.0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer without end. How long it may take is the caller's to say.

        Args:
            rest: seconds for which nothing is read after all that was there has been: to wake up
                for many small pieces costs more than what is in them.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
        async with self._answer("GET", path, query=query, limits=limits) as answer:
            yield _lines(answer, rest)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Object | None = None,
        kind: str = "application/json",
        within: float = CALL,
    ) -> Object:
        limits = aiohttp.ClientTimeout(total=within, sock_connect=min(CONNECT, within))
        async with self._answer(
            method, path, query=query, body=body, kind=kind, limits=limits
        ) as answer:
            try:
                return cast("Object", orjson.loads(await answer.read()))
            except _BROKEN as error:
                raise _away(error) from error
            except ValueError as error:
                raise KubeAway("the API server's answer is not JSON") from error

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Object | None = None,
        kind: str = "application/json",
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if method != "GET" and not self.may_act():
            raise KubeAway("this replica of the service does not lead")
        headers = {"Accept": "application/json", "Content-Type": kind}
        await self.update_params_for_auth(headers, [], ["BearerToken"])
        headers["User-Agent"] = AGENT
        asked = elapsed()
        try:
            answer = await self.rest_client.pool_manager.request(
                method,
                f"{self.configuration.host}{path}",
                params=dict(query or {}),
                headers=headers,
                data=None if body is None else json.dumps(body),
                timeout=limits,
                server_hostname=self.rest_client.server_hostname,
                proxy=self.rest_client.proxy,
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise _ConnectionLost(_words(error)) from error
        except _BROKEN as error:
            raise _away(error) from error
        if self.hears is not None:
            self.hears(answer.headers.get("Date"), asked)
        try:
            if answer.status >= _ERRORS_FROM:
                raise await _refusal(answer)
            yield answer
        finally:
            end(answer)


def end(answer: aiohttp.ClientResponse) -> None:
    """Lets go of an answer; the connection of one that is not at its end is of no more use."""
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    answer.close()


class _ConnectionLost(KubeAway):
    """The connection broke before an answer began: what was only read may be asked again."""


#: What a connection, its encryption or a time limit may raise.
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


def _away(error: Exception) -> KubeAway:
    return KubeAway(_words(error))


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the API server does not answer in time"
    return f"the API server cannot be reached ({type(error).__name__})"


async def _refusal(answer: aiohttp.ClientResponse) -> KubeAway | KubeRefused:
    """What an answer with an error's status means."""
    try:
        said = json.loads(await answer.read())
    except (*_BROKEN, ValueError):
        said = {}
    said = said if isinstance(said, dict) else {}
    message = str(said.get("message") or answer.reason or "")
    if answer.status in _LATER:
        return KubeAway(f"the API server answers {answer.status}: {message:.200}")
    return KubeRefused(answer.status, str(said.get("reason") or ""), message)


async def _lines(answer: aiohttp.ClientResponse, rest: float) -> AsyncIterator[bytes]:
    begun = b""
    try:
        while data := await answer.content.readany():
            *whole, begun = (begun + data).split(b"\n")
            for line in whole:
                yield line + b"\n"
            if len(begun) > LONGEST_LINE:
                raise KubeAway("the API server sent a line without end")
            if rest:
                await _rest(answer, rest)
    except _BROKEN as error:
        raise _away(error) from error
    if begun:
        yield begun


async def _rest(answer: aiohttp.ClientResponse, seconds: float) -> None:
    """Lets what comes meanwhile wait in the operating system."""
    transport = None if answer.connection is None else answer.connection.transport
    if transport is None:
        return
    transport.pause_reading()
    try:
        await asyncio.sleep(seconds)
    finally:
        transport.resume_reading()


@asynccontextmanager
async def connect(
    settings: Settings, may_act: Callable[[], bool] = lambda: True
) -> AsyncIterator[Kube]:
    """A connection as the settings say; closed at the end of the block.

    Args:
        may_act: asked before each call that changes something.

    Raises:
        NoCredentials: there are none where they should be.
    """
    configuration = Configuration()
    path = settings.kubernetes.kubeconfig
    try:
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration)
        else:
            file = str(path) if path else None
            await load_kube_config(config_file=file, client_configuration=configuration)
    except (ConfigException, OSError, TypeError) as error:
        where = path or "the pod's service account, or ~/.kube/config"
        raise NoCredentials(f"{where}: {error}") from error
    configuration.connection_pool_maxsize = CONNECTIONS
    kube = Kube(configuration)
    kube.may_act = may_act
    connector: aiohttp.BaseConnector | None = kube.rest_client.pool_manager.connector
    try:
        yield kube
    finally:
        # Encrypted connections would otherwise say goodbye, after their event loop has ended.
        if connector is not None:
            await connector.close(abort_ssl=True)
        await kube.close()
        await asyncio.sleep(0)

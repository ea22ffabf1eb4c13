"""The WebSocket at `gpudev/ssh`, and what is set up for it in a server."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.iostream import IOStream

from gpudev_client.errors import GpuDevError, RefusalError
from gpudev_client.models import SshHostReport
from gpudev_client.ssh import frames

from . import daemon, hostkey, proxied, relay, who
from .sessions import Full, Sessions
from .types import Link

log = logging.getLogger("gpudev_lab.sshd")

PATH = r"gpudev/ssh"
TICKET = "Gpudev-Ticket"
#: Seconds that a client may take for its one header.
OPENING_TIMEOUT = 30.0
#: Seconds before the host key is published again after that has failed: at first, and at most.
PAUSE, PAUSE_MOST = 1.0, 120.0
_TICKET_MAX = 128
_FORBIDDEN, _UPGRADE_REQUIRED, _BAD_REQUEST, _BUSY = 403, 426, 400, 503


class _No(Exception):  # noqa: N818 - it is an answer
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Caller:
    """Who asks, and with which keys they may come in."""

    def __init__(self, user: str, keys: tuple[str, ...]) -> None:
        self.user, self.keys = user, keys


class SshHandler(JupyterHandler):
    """Opens the WebSocket and gives it to an sshd. Every refusal comes before the upgrade."""

    auth_resource = "gpudev"
    #: SSH has a measure of its own; the server's `last_activity` is about its pages.
    _track_activity = False

    def initialize(self, host: Host) -> None:
        self._host = host

    def check_xsrf_cookie(self) -> None:
        """A GET that opens a socket: `_caller` looks at the origin."""

    # A ticket is an authentication of its own; `_caller` lets nobody pass without one of both.
    @allow_unauthenticated
    async def get(self) -> None:
        try:
            key, protocol = self._wanted()
            caller = await self._caller()
            await self._host.ensure()
            await self._open(caller, key, protocol)
        except _No as no:
            self._refuse(no.status, no.code, no.message)
        except OSError as error:
            log.warning("an SSH connection was not served: %s", error.strerror or error)
            self._refuse(_BUSY, "server_not_ready", "The server lacks something; try again.")
        except daemon.Unavailable as unavailable:
            self._refuse(_BUSY, "server_not_ready", str(unavailable))
        except Full:
            self._refuse(_BUSY, "too_many", "There are too many SSH connections to this server.")

    def _wanted(self) -> tuple[str, str]:
        """The WebSocket's key and our choice of the subprotocols."""
        headers = self.request.headers
        upgrades = headers.get("Upgrade", "").lower() == "websocket"
        if not upgrades or "upgrade" not in headers.get("Connection", "").lower():
            raise _No(_UPGRADE_REQUIRED, "invalid_input", "This is a WebSocket for SSH.")
        key = headers.get("Sec-WebSocket-Key", "")
        if headers.get("Sec-WebSocket-Version") != "13" or not _is_key(key):
            raise _No(_BAD_REQUEST, "invalid_input", "The WebSocket's handshake is not complete.")
        offered = [p.strip() for p in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        # sshd cannot speak on a socket that is TLS.
        possible = [frames.FRAMES] if self._host.tls else [frames.RAW, frames.FRAMES]
        chosen = next((p for p in offered if p in possible), None)
        if chosen is None:
            raise _No(
                _BAD_REQUEST,
                "invalid_input",
                f"Offer one of the subprotocols {' and '.join(possible)}.",
            )
        return key, chosen

    async def _caller(self) -> _Caller:
        ticket = self.request.headers.get(TICKET)
        if ticket is not None:
            return await self._by_ticket(ticket)
        if self.current_user is None or not await self._authorized() or not self.check_origin():
            raise _No(_FORBIDDEN, "not_authenticated", "A ticket or a Hub login is needed.")
        known = self._host.sessions.people().get(_name(self.current_user))
        if known is None:
            raise _No(_FORBIDDEN, "not_allowed", "You have no right to use this server by SSH.")
        return _Caller(known.user, known.keys)

    async def _authorized(self) -> bool:
        allowed = self.authorizer.is_authorized(self, self.current_user, "execute", "gpudev")
        return bool(await allowed if asyncio.iscoroutine(allowed) else allowed)

    async def _by_ticket(self, ticket: str) -> _Caller:
        if not 1 <= len(ticket) <= _TICKET_MAX:
            raise _No(_FORBIDDEN, "not_authenticated", "This is no ticket.")
        link = self._host.link
        try:
            holder = await link.redeem(ticket)
            if holder.user not in self._host.sessions.people():
                # Invited a moment ago: the view is older than the ticket.
                await link.renew()
        except RefusalError as refusal:
            raise _No(_FORBIDDEN, refusal.code, refusal.message) from refusal
        except GpuDevError as error:
            raise _No(
                _BUSY, "unavailable", "The service cannot be asked now; try again."
            ) from error
        if holder.user not in self._host.sessions.people():
            raise _No(_FORBIDDEN, "not_allowed", "You have no right to use this server by SSH.")
        return _Caller(holder.user, tuple(holder.keys))

    async def _open(self, caller: _Caller, key: str, protocol: str) -> None:
        if not caller.keys:
            raise _No(_FORBIDDEN, "no_ssh_keys", "There is no SSH key of yours; add one first.")
        sessions = self._host.sessions
        sessions.admit()
        stream: IOStream = self.detach()
        try:
            stream.set_nodelay(True)
            await stream.write(_switching(key, protocol))
            ours = None
            if protocol == frames.RAW:
                connection = await _taken(stream)
            else:
                ours, connection = socket.socketpair()
        except OSError as error:  # also that of a stream that is closed
            log.info("an SSH connection was not opened: %s", error)
            stream.close()
            return
        if connection is None:
            return
        try:
            await sessions.serve(connection, {caller.user: caller.keys}, user=caller.user)
        except (OSError, Full, daemon.Unavailable) as error:
            # The upgrade has been promised: all that can be said now is the end.
            log.warning("an SSH connection was not served: %s", str(error) or "there are too many")
            connection.close()
            if ours is not None:
                ours.close()
            stream.close()
            return
        if ours is not None:
            sessions.keep(relay.run(stream, ours))

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        error = {"code": code, "message": message, "field": None, "accepted": None}
        self.finish(json.dumps({"error": error}))


class Host:
    """SSH in one server: its host key, published once it is there, and its connections."""

    def __init__(self, link: Link, home: Path, *, tls: bool) -> None:
        self.link, self.home, self.tls = link, home, tls
        self.sessions = Sessions(lambda: link.view)
        self._lock = asyncio.Lock()
        self._published = False
        self._news = asyncio.Event()
        self._told = ""
        self._reported: SshHostReport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.unsubscribe = link.subscribe(self.changed)

    def start(self) -> None:
        """Called once, in the event loop."""
        proxied.serve(self)
        self.changed()

    def changed(self) -> None:
        """Called when the service has said something new."""
        self.sessions.check()
        if not self._published and self.link.view is not None:
            if self._tasks:
                self._news.set()  # it is being tried: again at once
                return
            task = asyncio.get_running_loop().create_task(self._publish_at_last())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def ensure(self) -> None:
        """Makes sure that connections can be served.

        Raises:
            daemon.Unavailable: they cannot; the message says why.
        """
        async with self._lock:
            if not self.sessions.ready:
                await self._prepare()

    async def _prepare(self) -> hostkey.HostKey:
        view = self.link.view
        if view is None:
            raise daemon.Unavailable("The server has not heard from the service yet; try again.")
        daemon.check()  # before the key: ssh-keygen would not say what the server lacks
        try:
            key = await asyncio.to_thread(hostkey.ensure, self.home, who.disk(view))
        except hostkey.HostKeyError as error:
            raise daemon.Unavailable(f"SSH is not possible here: {error}.") from error
        if not self.sessions.ready:
            self.sessions.prepare(os.environ, key.path)
        return key

    async def _publish_at_last(self) -> None:
        """Tells the service how this server is reached; tried again, with longer and longer pauses
        or with the next news, until it is said or this is closed."""
        pause = PAUSE
        while True:
            self._news.clear()
            await self._publish()
            if self._published:
                return
            with contextlib.suppress(TimeoutError):  # then it is time
                async with asyncio.timeout(pause):
                    await self._news.wait()
            pause = min(2 * pause, PAUSE_MOST)

    async def _publish(self) -> None:
        """Tells the service once."""
        async with self._lock:
            if self._published or self.link.view is None:
                return
            try:
                report = await self._report()
                if report != self._reported:
                    await self.link.publish_host(report)
                    self._reported = report
            except (GpuDevError, OSError) as error:
                self._tell(f"the host key could not be published: {error}")
            else:
                self._published = report.unavailable is None

    async def _report(self) -> SshHostReport:
        """How this server is reached, or why it is not: nobody waits for what does not come."""
        try:
            key = await self._prepare()
        except daemon.Unavailable as unavailable:
            self._tell(f"no SSH in this server: {unavailable}")
            return SshHostReport(unavailable=str(unavailable))
        return SshHostReport(host_keys=[key.public], login=self.sessions.login, home=str(self.home))

    def _tell(self, why: str) -> None:
        """Logs why it is tried again, once for each reason."""
        if why != self._told:
            log.warning("%s; it is tried again", why)
        self._told = why

    async def close(self) -> None:
        self.unsubscribe()
        for task in self._tasks:
            task.cancel()
        await self.sessions.close()


def setup(serverapp: Any, link: Link) -> Host:
    """See `gpudev_lab.sshd.setup`."""
    host = Host(link, Path(os.environ.get("HOME", "/")), tls=bool(serverapp.certfile))
    web_app = serverapp.web_app
    route = (url_path_join(web_app.settings["base_url"], PATH), SshHandler, {"host": host})
    web_app.add_handlers(".*$", [route])
    serverapp.io_loop.add_callback(host.start)
    return host


async def _taken(stream: IOStream) -> socket.socket | None:
    """The socket out of tornado's hands, after the client's one header has been read from it; None
    if that did not come. Nothing behind the header is touched: it is sshd's."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(stream.socket)
    stream.io_loop.remove_handler(stream.socket)
    connection = socket.socket(fileno=stream.socket.detach())
    connection.setblocking(False)
    try:
        async with asyncio.timeout(OPENING_TIMEOUT):
            opening = b""
            while len(opening) < len(frames.CLIENT_OPENING):
                left = len(frames.CLIENT_OPENING) - len(opening)
                piece = await loop.sock_recv(connection, left)
                if not piece:
                    break
                opening += piece
    except (OSError, TimeoutError):
        opening = b""
    if opening != frames.CLIENT_OPENING:
        connection.close()
        return None
    connection.setblocking(True)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def _switching(key: str, protocol: str) -> bytes:
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {frames.accept(key)}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    opening = frames.SERVER_OPENING if protocol == frames.RAW else b""
    return head.encode("ascii") + opening


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16  # noqa: PLR2004
    except (binascii.Error, ValueError):
        return False


def _name(user: Any) -> str:
    """The Hub's name of whoever is logged in."""
    hub_user = getattr(user, "hub_user", None)
    return str(hub_user["name"]) if isinstance(hub_user, dict) else str(user.username)

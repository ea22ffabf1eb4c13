"""Who is connected, and their end.

One sshd serves one connection. It is known here with the Hub user whose it is and with the key that
opened it, until it ends or must end: when the person is not among those who may come in any more,
or the key is not among theirs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpudev_client.models import LabView

from . import daemon, processes, who

log = logging.getLogger("gpudev_lab.sshd")

#: Connections of one server at a time.
MOST = 512
_ACCEPTED = re.compile(r"Accepted publickey for .* (SHA256:[A-Za-z0-9+/]+)\s*$")
_LINE_MAX = 64 * 1024


class Full(Exception):  # noqa: N818 - it is said to a person
    """There are as many connections as there may be."""


@dataclass(eq=False)
class Session:
    """One connection.

    Attributes:
        user: the Hub user; None while only the key will tell.
        keys: the fingerprints that may open it.
        used: the fingerprint that did; None before.
    """

    name: str
    user: str | None
    keys: frozenset[str]
    process: asyncio.subprocess.Process
    began: datetime
    used: str | None = None
    meter: processes.Meter = field(default_factory=processes.Meter)

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(frozen=True, slots=True)
class Activity:
    """How a connection is used. `last` is the last sign of use, as far as it was looked at (see
    `processes.Meter`)."""

    user: str | None
    began: datetime
    last: datetime


class Sessions:
    """All connections of one server.

    Args:
        view: what the service has said last.
        now: the clock.
    """

    def __init__(
        self, view: Callable[[], LabView | None], now: Callable[[], datetime] | None = None
    ) -> None:
        self._view = view
        self._now = now or (lambda: datetime.now(UTC))
        self._daemon: daemon.Daemon | None = None
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: set[asyncio.Task[None]] = set()
        #: Who might come in when that was looked at last.
        self._known: frozenset[str] = frozenset()
        #: With which keys, by their users.
        self._keys: frozenset[tuple[str, str]] = frozenset()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def prepare(self, environment: Mapping[str, str], host_key: Path) -> None:
        """Says what sshd is started with.

        Raises:
            daemon.Unavailable: SSH is not possible here.
        """
        if self._daemon is not None:
            self._daemon.close()
        self._daemon = daemon.Daemon(environment, host_key)

    @property
    def ready(self) -> bool:
        return self._daemon is not None

    @property
    def login(self) -> str:
        """The account of sessions."""
        return self._prepared().account.login

    def people(self) -> dict[str, who.Person]:
        view = self._view()
        return {} if view is None else who.people(view, self._now())

    async def serve(
        self,
        connection: socket.socket,
        people: Mapping[str, tuple[str, ...]],
        *,
        user: str | None,
    ) -> Session:
        """Starts sshd on `connection`, which is sshd's alone from then on.

        Args:
            connection: blocking, and closed here.
            people: who may come in, with their public keys.
            user: whose connection it is, if that is known.

        Raises:
            Full: too many connections.
            daemon.Unavailable: SSH is not possible here.
        """
        with connection:
            self.admit()
            prepared = self._prepared()
            self._count += 1
            name = f"session-{self._count}"
            keys = prepared.keys(name, people)
            try:
                process = await asyncio.create_subprocess_exec(
                    *prepared.command(keys),
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=asyncio.subprocess.PIPE,
                    limit=_LINE_MAX,
                    # What its sessions get stands in the configuration; the mark of the lease is
                    # for whoever ends all of its processes.
                    env=processes.marked_environment(),
                    start_new_session=True,
                )
            except BaseException:
                daemon.forget(keys)
                raise
        prints = frozenset(who.fingerprint(key) for own in people.values() for key in own)
        session = Session(name, user, prints, process, self._now())
        self._sessions.add(session)
        self._spawn(self._follow(session, keys))
        return session

    def admit(self) -> None:
        """Raises what `serve` would, before anything has been promised to the caller."""
        self._prepared()
        if len(self._sessions) >= MOST:
            raise Full

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside the connections, ended by `close`."""
        task = self._spawn(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    def check(self) -> None:
        """Ends who must not be connected any more, and what was left running by everybody who must
        not come in any more and with every key that was removed; called when the service has said
        something new, and when an invitation ends."""
        view = self._view()
        if view is None:
            return
        known = who.people(view, self._now())
        for session in list(self._sessions):
            reason = _objection(session, known)
            if reason is not None:
                log.info("ends the SSH session of %s: %s", session.user or "nobody", reason)
                self._spawn(self._end(session))
        # Also of who is not connected just now.
        for user in sorted(self._known - known.keys()):
            log.info("ends what %s has left running: no access any more", user)
            self._spawn(asyncio.to_thread(processes.end, None, daemon.mark(user)))
        keys = frozenset((user, one) for user in known for one in known[user].fingerprints)
        for user, key in sorted(self._keys - keys):
            if user in known:
                log.info("ends what %s has left running: a key was removed", user)
                mark = daemon.key_mark(user, key)
                self._spawn(asyncio.to_thread(processes.end, None, mark, daemon.KEY_MARK))
        self._known, self._keys = frozenset(known), keys
        self._arm(view)

    async def activity(self) -> list[Activity]:
        """How each connection has been used; for the verdict on idleness."""
        now, sessions = self._now(), list(self._sessions)

        def look() -> list[Activity]:
            return [
                Activity(one.user, one.began, one.meter.last(one.pid, one.began, now))
                for one in sessions
            ]

        return await asyncio.to_thread(look)

    def __len__(self) -> int:
        return len(self._sessions)

    async def close(self) -> None:
        """Ends every connection."""
        if self._timer is not None:
            self._timer.cancel()
        for session in list(self._sessions):
            self._spawn(self._end(session))
        for task in self._kept:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._daemon is not None:
            self._daemon.close()

    def _prepared(self) -> daemon.Daemon:
        if self._daemon is None:
            raise daemon.Unavailable("The server is not ready for SSH yet; try again in a moment.")
        return self._daemon

    async def _follow(self, session: Session, keys: Path) -> None:
        """Reads what sshd says until it ends."""
        stream = session.process.stderr
        assert stream is not None  # noqa: S101 - it was asked for
        try:
            async for line in _lines(stream):
                accepted = _ACCEPTED.search(line)
                if accepted is not None and session.used is None:
                    session.used = accepted[1]
                    session.user = session.user or who.owner_of(accepted[1], self.people())
                    daemon.forget(keys)
                    # It may have been taken away since the file was written.
                    self.check()
                log.debug("sshd: %s", line)
            await session.process.wait()
        finally:
            daemon.forget(keys)
            self._sessions.discard(session)

    async def _end(self, session: Session) -> None:
        await asyncio.to_thread(processes.end, session.pid, None)

    def _arm(self, view: LabView) -> None:
        """Looks again when the next invitation ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = who.next_end(view, self._now())
        if end is not None:
            wait = max(0.0, (end - self._now()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(min(wait, 86_400.0), self.check)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("an SSH session could not be followed", exc_info=task.exception())


def _objection(session: Session, known: Mapping[str, who.Person]) -> str | None:
    """Why a connection must not stay; None where it may."""
    if session.user is None:
        # Not known before its key is; until then it has one more minute to show one.
        current = frozenset(key for one in known.values() for key in one.fingerprints)
        if session.used is not None:
            return None if session.used in current else "the key is nobody's any more"
        return None if session.keys <= current else "a key was removed"
    person = known.get(session.user)
    if person is None:
        return "no access any more"
    allowed = person.fingerprints
    if session.used is not None:
        return None if session.used in allowed else "the key was removed"
    return None if session.keys <= allowed else "a key was removed"


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # a line longer than any of sshd's: what was read of it is dropped
        if not line:
            return
        yield line.decode("utf-8", errors="replace").rstrip()

"""A PostgreSQL that says nothing and closes nothing: waiting for it has an end.

A server that stands still, or is cut off behind something that answers in its place, is noticed by
nobody: TCP has no complaint, and its own `statement_timeout` stands still with it. To cancel helps
little, as the driver then asks that same server to cancel. So the line is cut at this end. To the
driver, to the pool and to the store that is a connection that is lost, which they know how to go
on from, also where it was lost during a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Any

import psycopg
from psycopg.pq import ConnStatus

log = logging.getLogger(__name__)


class Connection(psycopg.AsyncConnection[Any]):
    """A connection on which no answer is waited for longer than `silence` seconds.

    Setting it up is bounded by `connect_timeout`."""

    silence: float | None = None

    async def wait(self, *given: Any, **options: Any) -> Any:
        """All waiting for the server goes this way, that for the end of a cancelled statement too.

        `given` differs between versions of the driver."""
        if self.silence is None:
            return await super().wait(*given, **options)
        timer = asyncio.get_running_loop().call_later(self.silence, self._hang_up)
        try:
            return await super().wait(*given, **options)
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        if self.pgconn.status != ConnStatus.OK:
            return
        log.warning("PostgreSQL says nothing for %g s: the connection is given up", self.silence)
        # Not `close`: whoever waits would wait on, for a number that may soon be another socket's.
        with (
            socket.socket(fileno=os.dup(self.pgconn.socket)) as line,
            contextlib.suppress(OSError),  # it has just broken by itself
        ):
            line.shutdown(socket.SHUT_RDWR)


async def connect(*given: Any, silence: float, **options: Any) -> Connection:
    """A connection with that patience; the rest is as for psycopg."""
    made = await Connection.connect(*given, **options)
    made.silence = silence
    return made

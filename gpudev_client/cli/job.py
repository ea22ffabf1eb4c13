"""The command that `gpu-dev submit` runs on a server: its start, its exit code, and its end."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

from gpudev_client.errors import RemoteError
from gpudev_client.remote import NO_CONNECTION

from .app import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpudev_client.remote import Remote

#: Made after the copy: what has changed since then is a result.
STARTED = ".gpudev-started"
#: Hold the command's process group, and its exit code.
_RUNNING, _ENDED = ".gpudev-running", ".gpudev-ended"
#: Our own files over there, which are no results.
OURS = frozenset({STARTED, _RUNNING, _ENDED})
#: Seconds between one way of ending a command and the next harder one.
GRACE = 10.0
_HARDER = ("INT", "TERM", "KILL")


class Job:
    """One command in one folder of a server.

    Args:
        told: takes sentences for whoever waits.
    """

    def __init__(self, remote: Remote, place: str, line: str, told: Callable[[str], None]) -> None:
        self._remote, self._place, self._line, self._told = remote, place, line, told
        # Tells an end of this run from one before, and that from a lost connection.
        self._mark = uuid.uuid4().hex

    def run(self) -> int:
        """Runs it with its output here, on a terminal if there is one; its exit code.

        Ctrl-C ends it over there as it would here: the lease goes on, and with it whatever runs.

        Raises:
            RemoteError: the connection was lost, or it could not be ended.
        """
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        process = self._remote.popen(
            self._script(),
            *(["-tt"] if terminal else []),
            stdin=None if terminal else subprocess.DEVNULL,
            # Ctrl-C reaches all that runs on this terminal. The connection is to live on, for what
            # the command says while it ends.
            preexec_fn=_ignore_interrupts,
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            self._end(process)
            return INTERRUPTED
        # A command may answer what ssh answers for itself.
        return self._written_code() if code == NO_CONNECTION else code

    def _script(self) -> str:
        # sshd makes each command the leader of a process group; the trap lets this shell see its
        # command's end when the whole group is told to end. Times of files are a few milliseconds
        # coarse: what is written next is to be later.
        whole = (
            f"cd {shlex.quote(self._place)} || exit; rm -f {_ENDED}; "
            f"echo {self._mark} $$ > {_RUNNING}; : > {STARTED}; sleep 0.1; trap : INT TERM; "
            f"sh -c {shlex.quote(self._line)}; code=$?; rm -f {_RUNNING}; "
            f"echo {self._mark} $code > {_ENDED}; exit $code"
        )
        return f"exec sh -c {shlex.quote(whole)}"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends it and all that it has started; another Ctrl-C does not wait for its grace."""
        for how in _HARDER:
            try:
                self._told(f"Ending the command (SIG{how}) ...")
                self._signal(how)
                process.wait(GRACE)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                continue
            return
        process.kill()
        process.wait()
        raise RemoteError("The command did not end.")

    def _signal(self, how: str) -> None:
        ask = (
            f"cd {shlex.quote(self._place)} && if read -r mark group < {_RUNNING} && "
            f'test "$mark" = {self._mark}; then kill -s {how} -- "-$group"; fi 2>/dev/null'
        )
        done = self._remote.run(f"exec sh -c {shlex.quote(ask)}")
        if done.returncode == NO_CONNECTION:
            raise RemoteError("The command could not be ended: there is no connection.")

    def _written_code(self) -> int:
        """The exit code as it was written down; the connection may have been lost after it."""
        done = self._remote.run(f"cat {shlex.quote(self._place)}/{_ENDED}")
        mark, _, code = done.stdout.decode(errors="replace").strip().partition(" ")
        if mark == self._mark and code.isdecimal():
            return int(code)
        raise Lost


class Lost(RemoteError):  # noqa: N818 - what happened
    """The connection was lost while the command ran; it may go on."""

    def __init__(self) -> None:
        super().__init__("The connection was lost.")


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""`gpu-dev submit`: a folder up, a command, its results back, and the GPUs given back."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpudev_client import words
from gpudev_client.errors import GpuDevError

from . import pick, ssh, wait
from .app import INTERRUPTED, App, Refused
from .reserve import Wish, announce, complete, request
from .show import note

if TYPE_CHECKING:
    from gpudev_client.remote import Remote

#: Where folders go, below the home directory over there.
_PLACE = "gpudev-submit"
#: Made after the copy: what has changed since then is a result. Holds the command's exit code.
_STARTED, _ENDED = ".gpudev-started", ".gpudev-ended"


@click.command(cls=ssh.WithRest, options_metavar="[OPTIONS]")
@click.argument("folder", metavar="[FOLDER] -- COMMAND", required=False, type=Path)
@click.option("-t", "--gpu-type", metavar="TYPE", help="GPU type; `gpu-dev avail` lists them.")
@click.option("-g", "--gpus", type=click.IntRange(0), metavar="N", help="How many GPUs.")
@click.option("-h", "--hours", type=float, metavar="HOURS", help="For at most how long.")
@click.option("-n", "--name", metavar="NAME", help="Your own name for it.")
@click.option("--disk", metavar="NAME|none", help="The disk that becomes the home directory.")
@click.option("--create-disk", is_flag=True, help="Create the disk if there is none of this name.")
@click.option("--image", metavar="IMAGE", help="A container image of your own, if policy allows.")
@click.option("--on", "existing", metavar="ID", help="A reservation that is there; it is kept.")
@click.option("--keep-alive", is_flag=True, help="Do not give the GPUs back at the end.")
@click.option("--no-pull", is_flag=True, help="Do not copy results back.")
@click.pass_context
def submit(
    ctx: click.Context,
    folder: Path | None,
    gpu_type: str | None,
    gpus: int | None,
    hours: float | None,
    name: str | None,
    disk: str | None,
    create_disk: bool,
    image: str | None,
    existing: str | None,
    keep_alive: bool,
    no_pull: bool,
) -> None:
    """Run a command on GPUs: copy a folder up, run, copy the results back, give the GPUs back.

    gpu-dev submit -t t4 -g 1 -h 2 -- python train.py

    FOLDER is the current one unless it is given. What .gpudevignore names, or else what git
    ignores, is not copied up. Everything new or changed comes back, also what git ignores; only
    what .gpudevignore names stays there. If it cannot be copied back, the reservation is kept. The
    exit code is the command's. Here -h is --hours; for this text use --help.
    """
    app = ctx.ensure_object(App)
    command = ssh.rest(ctx)
    if not command:
        raise click.UsageError("Say what to run after --, such as: -- python train.py")
    top = (folder or Path()).resolve()
    if not top.is_dir():
        raise click.UsageError(f"{top} is no folder.")
    line = command[0] if len(command) == 1 else shlex.join(command)
    if existing is not None:
        ctx.exit(_Run(app, pick.reservation_id(app, existing), top).all(line, pull=not no_pull))
    label = name or top.name[:60] or None
    wish = Wish(gpu_type, gpus, hours, label, disk, create_disk, image)
    made = app.client.reserve(request(complete(app, wish)))
    announce(app, made)
    release = not keep_alive
    try:
        wait.until_active(app, made, may_ask=False, stays=keep_alive)
        run = _Run(app, made.id, top)
        run.up()
        # From here on there may be results, and they are nowhere else until they have come back.
        release = False
        code = run.results(line, pull=not no_pull)
        release = not keep_alive
    finally:
        if release:
            _release(app, made.id)
    ctx.exit(code)


class _Kept(Refused):
    """Something stands between the results and this machine; the GPUs are not given back."""


class _Run:
    """One command on one server."""

    def __init__(self, app: App, reservation_id: str, top: Path) -> None:
        self.app, self.id, self.top = app, reservation_id, top
        self.place = f"{_PLACE}/{top.name or 'root'}"
        self.remote = self._connection()

    def all(self, line: str, *, pull: bool) -> int:
        """Everything; the command's exit code."""
        self.up()
        return self.results(line, pull=pull)

    def results(self, line: str, *, pull: bool) -> int:
        """Runs the command and copies back what it made; its exit code."""
        code = None
        try:
            code = self._run(line)
            if pull:
                self._down()
        except KeyboardInterrupt:
            raise _Kept(self._by_hand("Interrupted.", code)) from None
        except (GpuDevError, OSError) as error:
            raise _Kept(self._by_hand(str(error), code)) from error
        return code

    def _by_hand(self, why: str, code: int | None) -> str:
        """How to come to the results after all."""
        source = shlex.quote(f"{self.host}:{self.place}")
        ended = "" if code is None else f" The command ended with exit code {code}."
        return (
            f"{why.rstrip('.')}.{ended} Not all of its results are here: they are in {self.place} "
            f"of {self.id}, and the reservation is kept. To fetch them: `gpu-dev ssh-config`, then "
            f"`scp -r {source} .`; `gpu-dev cancel {self.id}` gives the GPUs back."
        )

    def _connection(self) -> Remote:
        from gpudev_client.remote import Remote

        access = ssh.way_in(self.app, self.id)
        self.host = access.host
        command = ssh.ssh_command(self.app, access)
        return Remote(command, ssh.environment(self.app), progress=sys.stderr.isatty())

    def up(self) -> None:
        from gpudev_client import ignoring
        from gpudev_client.remote import total

        names = ignoring.files(self.top)
        size = words.size(total(self.top, names))
        note(f"Copying {_files(len(names))} ({size}) to {self.place} ...", self.app.error_width)
        self.remote.upload(self.top, self.place)

    def _run(self, line: str) -> int:
        """Runs the command with its output here, on a terminal if there is one."""
        note(f"Running: {line}", self.app.error_width)
        mark = uuid.uuid4().hex
        place = shlex.quote(self.place)
        # The mark tells an end of this run from one before, and that from a lost connection. Times
        # of files are a few milliseconds coarse: what is written next is to be later.
        whole = (
            f"cd {place} || exit; rm -f {_ENDED}; : > {_STARTED}; sleep 0.1; "
            f"sh -c {shlex.quote(line)}; code=$?; echo {mark} $code > {_ENDED}; exit $code"
        )
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        options = ["-tt"] if terminal else []
        process = self.remote.popen(whole, *options, stdin=None if terminal else subprocess.DEVNULL)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            note("Interrupted.", self.app.error_width)
            return INTERRUPTED
        if code == ssh_lost():
            code = self._code(mark)
        return code

    def _code(self, mark: str) -> int:
        """The exit code as it was written down; the connection may have been lost after it."""
        done = self.remote.run(f"cat {shlex.quote(self.place)}/{_ENDED}")
        found = done.stdout.decode(errors="replace").split()
        if len(found) == 2 and found[0] == mark and found[1].isdecimal():  # noqa: PLR2004
            return int(found[1])
        raise _Kept(
            f"The connection to {self.id} was lost. The reservation is kept; `gpu-dev connect "
            f"{self.id}` leads to {self.place}, and `gpu-dev cancel {self.id}` gives it back."
        )

    def _down(self) -> None:
        from gpudev_client import ignoring

        # What is neither file nor link, such as a socket, is no result.
        kinds = r"\( -type f -o -type l \)"
        listed = self.remote.must(
            f"cd {shlex.quote(self.place)} && find . {kinds} -cnewer {_STARTED} -print0",
            "The results could not be listed",
        )
        names = [os.fsdecode(name)[2:] for name in listed.split(b"\0") if name]
        made = [name for name in names if name not in {_STARTED, _ENDED}]
        found = ignoring.returned(made, self.top)
        if len(made) > len(found):
            left = _files(len(made) - len(found))
            note(f"Left there, as {ignoring.FILE} says: {left}.", self.app.error_width)
        if not found:
            note("There are no new files to copy back.", self.app.error_width)
            return
        note(f"Copying {_files(len(found))} back ...", self.app.error_width)
        self.remote.fetch(self.place, found, self.top)


def ssh_lost() -> int:
    """What `ssh` answers when the connection was lost; a command may say the same."""
    from gpudev_client.remote import NO_CONNECTION

    return NO_CONNECTION


def _release(app: App, reservation_id: str) -> None:
    from gpudev_client._waiting import release

    app.client.transport.run(release(reservation_id))
    note(f"Reservation {reservation_id} is given back.", app.error_width)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"

"""`gpu-dev submit`: a folder up, a command, its results back, and the GPUs given back."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpudev_client import ignoring, words
from gpudev_client.errors import GpuDevError

from . import pick, ssh, wait
from .app import App, Refused
from .reserve import Wish, announce, complete, request, wishes
from .show import note

if TYPE_CHECKING:
    from gpudev_client.remote import Remote

#: Where folders go, below the home directory over there.
_PLACE = "gpudev-submit"
#: Characters of the sign that tells folders of one name apart.
_SIGN = 8


@click.command(cls=ssh.WithRest, options_metavar="[OPTIONS]")
@click.argument("folder", metavar="[FOLDER] -- COMMAND", required=False, type=Path)
@wishes("For at most how long.")
@click.option("--on", "existing", metavar="ID", help="A reservation that is there; it is kept.")
@click.option("--keep-alive", is_flag=True, help="Do not give the GPUs back at the end.")
@click.option("--no-pull", is_flag=True, help="Do not copy results back.")
@click.pass_context
def submit(
    ctx: click.Context,
    folder: Path | None,
    wish: Wish,
    existing: str | None,
    keep_alive: bool,
    no_pull: bool,
) -> None:
    """Run a command on GPUs: copy a folder up, run, copy the results back, give the GPUs back.

    gpu-dev submit -t t4 -g 1 -h 2 -- python train.py

    FOLDER is the current one unless it is given. What .gpudevignore names, or else what git
    ignores, is not copied up. Everything new or changed comes back, also what git ignores; only
    what .gpudevignore names stays there. If it cannot be copied back, the reservation is kept. The
    exit code is the command's. Ctrl-C ends the command over there too. Here -h is --hours; for this
    text use --help.
    """
    app = ctx.ensure_object(App)
    command = ssh.rest(ctx)
    if not command:
        raise click.UsageError("Say what to run after --, such as: -- python train.py")
    top = (folder or Path()).resolve()
    if not top.is_dir():
        raise click.UsageError(f"{top} is no folder.")
    ignoring.rules(top)  # what is wrong there is better known before GPUs are held
    ssh.ready(app)
    line = command[0] if len(command) == 1 else shlex.join(command)
    if existing is not None:
        ctx.exit(_Run(app, pick.reservation_id(app, existing), top).all(line, pull=not no_pull))
    wish = replace(wish, name=wish.name or top.name[:60] or None)
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
        self.place = f"{_PLACE}/{place_name(top)}"
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
        from gpudev_client.remote import total

        names = ignoring.files(self.top)
        size = words.size(total(self.top, names))
        note(f"Copying {_files(len(names))} ({size}) to {self.place} ...", self.app.error_width)
        self.remote.upload(self.top, self.place)

    def _run(self, line: str) -> int:
        from .job import Job, Lost

        note(f"Running: {line}", self.app.error_width)
        job = Job(self.remote, self.place, line, lambda said: note(said, self.app.error_width))
        try:
            return job.run()
        except Lost as lost:
            raise _Kept(
                f"The connection to {self.id} was lost. The reservation is kept; `gpu-dev connect "
                f"{self.id}` leads to {self.place}, and `gpu-dev cancel {self.id}` gives it back."
            ) from lost

    def _down(self) -> None:
        from .job import OURS, STARTED

        # What is neither file nor link, such as a socket, is no result.
        kinds = r"\( -type f -o -type l \)"
        listed = self.remote.must(
            f"cd {shlex.quote(self.place)} && find . {kinds} -cnewer {STARTED} -print0",
            "The results could not be listed",
        )
        names = [os.fsdecode(name)[2:] for name in listed.split(b"\0") if name]
        made = [name for name in names if name not in OURS]
        found = ignoring.returned(made, self.top)
        if len(made) > len(found):
            left = _files(len(made) - len(found))
            note(f"Left there, as {ignoring.FILE} says: {left}.", self.app.error_width)
        if not found:
            note("There are no new files to copy back.", self.app.error_width)
            return
        note(f"Copying {_files(len(found))} back ...", self.app.error_width)
        self.remote.fetch(self.place, found, self.top)


def place_name(top: Path) -> str:
    """What a folder is called over there: its own name, and a sign of the whole path. Two folders
    of one name do not meet, and the same one finds what it left there the last time."""
    sign = hashlib.sha256(os.fsencode(top)).hexdigest()[:_SIGN]
    return f"{top.name or 'root'}-{sign}"


def _release(app: App, reservation_id: str) -> None:
    from gpudev_client._waiting import release

    app.client.transport.run(release(reservation_id))
    note(f"Reservation {reservation_id} is given back.", app.error_width)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"

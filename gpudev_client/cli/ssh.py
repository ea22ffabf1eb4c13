"""The verbs for SSH: connect, ssh-config, vscode, proxy."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

import click

from gpudev_client import words
from gpudev_client.errors import Conflict, NotAllowed
from gpudev_client.states import LEASED, State

from . import pick, say, verbs
from .app import App, Refused, pass_app
from .show import emit_json, note, out

if TYPE_CHECKING:
    from gpudev_client import models
    from gpudev_client.ssh.config import Setup

_EDITORS = {"vscode": "vscode", "cursor": "cursor"}


class WithRest(click.Command):
    """A verb that passes on what stands behind `--`, whatever it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, rest = args[:at], args[at + 1 :]
            ctx.meta[_REST] = rest
        return super().parse_args(ctx, args)


_REST = f"{__name__}.rest"


def rest(ctx: click.Context) -> list[str]:
    found: list[str] = ctx.meta.get(_REST, [])
    return found


@click.command(cls=WithRest, options_metavar="[OPTIONS]")
@click.argument("reservation", metavar="[ID] [-- SSH-ARGUMENTS]", required=False)
@click.option("--browser", is_flag=True, help="Open JupyterLab in the browser instead.")
@verbs.as_json
@click.pass_context
def connect(ctx: click.Context, reservation: str | None, browser: bool, as_json: bool) -> None:
    """Open a shell on a reservation's server.

    What stands behind -- goes to ssh: a command, or options such as -L 8080:localhost:8080.
    Without ID it is the only live reservation. --json prints where it is and does not connect.
    """
    app = ctx.ensure_object(App)
    found = _running(app, reservation)
    if browser:
        _browse(app, found)
        return
    if as_json:
        emit_json({"id": found.id, "url": _address(app, found), "ssh_host": found.ssh_host})
        return
    _become(app, [*ssh_command(app, way_in(app, found.id)), *rest(ctx)])


@click.command("ssh-config")
@click.option("--remove", is_flag=True, help="Take it out again.")
@click.option("--file", metavar="FILE", type=Path, help="Another file than ~/.ssh/config.")
@click.option("--print", "only_print", is_flag=True, help="Print it and change nothing.")
@pass_app
def ssh_config(app: App, remove: bool, file: Path | None, only_print: bool) -> None:
    """Make `ssh gpudev-ID`, scp, rsync and editors find your reservations.

    Adds one line to ~/.ssh/config, which includes a file of ours with one Host pattern. Run it
    again after logging in to another Hub; --remove undoes it.
    """
    from gpudev_client.ssh import config as ssh

    where = file or ssh.user_config()
    if remove:
        gone = ssh.remove(_setup(app, None), where)
        app.tell(f"{where} is as it was." if gone else "There was nothing to remove.")
        return
    setup = _setup(app, _some_login(app))
    if only_print:
        out(ssh.block(setup).rstrip("\n"))
        return
    changed = ssh.install(setup, where)
    app.tell(f"{where} includes {setup.config} now." if changed else f"{setup.config} is written.")
    app.tell("Connect with `ssh gpudev-ID`; `gpu-dev list` shows the ids.")


@click.command()
@click.argument("reservation", metavar="[ID]", required=False)
@click.option("--cursor", is_flag=True, help="For Cursor instead of VS Code.")
@click.option("--print", "only_print", is_flag=True, help="Print the link and open nothing.")
@verbs.yes
@pass_app
def vscode(app: App, reservation: str | None, cursor: bool, only_print: bool, yes: bool) -> None:
    """Open a reservation's home directory in VS Code, over SSH.

    Prints the link too. VS Code needs its extension "Remote - SSH", and `gpu-dev ssh-config`.
    """
    from gpudev_client.ssh import config as ssh

    access = way_in(app, _running(app, reservation).id)
    setup = _setup(app, access.login)
    where = ssh.user_config()
    if ssh.is_installed(setup, where):
        _keep_login(setup)
    elif (
        not only_print
        and (yes or app.interactive())
        and app.confirm(f"Editors find reservations by {where}. Add our line to it?", yes=yes)
    ):
        ssh.install(setup, where)
    else:
        note("Run `gpu-dev ssh-config` first, so that editors find it.", app.error_width)
    link = editor_link(access, "cursor" if cursor else "vscode")
    out(link)
    if not only_print and app.interactive() and click.launch(link) != 0:
        raise Refused("The link could not be opened; open it in your editor.")


@click.command(
    "proxy",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="gpudev-ID")
@click.pass_context
def proxy(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Carry an SSH connection, as a ProxyCommand of ssh.

    ssh -o ProxyCommand="gpu-dev proxy gpudev-ID" ... ; `gpu-dev ssh-config` writes a quicker one.
    """
    from gpudev_client.ssh.main import main

    app = ctx.ensure_object(App)
    if app.url:
        os.environ["GPUDEV_URL"] = app.url
    ctx.exit(main(list(arguments)))


def way_in(app: App, reservation_id: str) -> models.SshAccess:
    """How a server is reached by SSH; waits, with words, while it is starting."""
    from gpudev_client._waiting import way_in as flow

    def waits(why: str) -> None:
        note(why, app.error_width)

    return app.client.transport.run(flow(reservation_id, waits))


def ready(app: App) -> None:
    """Refuses what could only fail once GPUs are held: without `ssh` or a key of the person's."""
    from gpudev_client.ssh import config as ssh

    _needs_ssh()
    me = app.client.me().name
    try:
        known = app.client.ssh_keys(me).items
    except NotAllowed:
        return  # a narrowed token does not see them; the way in says it
    if not known:
        raise Refused(
            "You have no SSH key at gpudev yet, and commands come to the server by SSH. Run "
            "`gpu-dev ssh-keys add`, and before it `ssh-keygen` where you have no key."
        )
    if not ssh.has_key(os.environ):
        raise Refused(
            f"gpudev knows {words.counted(len(known), 'SSH key')} of yours, but ssh finds none "
            "here: no agent runs, and there is no key file. Run `ssh-keygen` and `gpu-dev ssh-keys "
            "add`, or start an agent and `ssh-add` your key."
        )


def _needs_ssh() -> None:
    if shutil.which("ssh") is None:
        raise Refused(
            "The program ssh is not installed here. Install OpenSSH's client, such as by "
            "`apt install openssh-client`."
        )


def ssh_command(app: App, access: models.SshAccess) -> list[str]:
    """`ssh` to a server, ready for what should be done there."""
    from gpudev_client.ssh import config as ssh

    _needs_ssh()
    setup = _setup(app, access.login)
    if setup.config.exists():
        _keep_login(setup)
    return ssh.command(setup, access.host, access.login)


def editor_link(access: models.SshAccess, editor: str) -> str:
    """What opens an editor in the home directory."""
    home = quote(access.home or "/", safe="/")
    return f"{_EDITORS[editor]}://vscode-remote/ssh-remote+{access.host}{home}"


def environment(app: App) -> dict[str, str]:
    """For a child that finds the same service as this command does; no token is among it."""
    found = dict(os.environ)
    if app.url:
        found["GPUDEV_URL"] = app.client.url
    return found


def _running(app: App, given: str | None) -> models.Reservation:
    found = pick.reservation(app, given, LEASED)
    if found.state not in (State.ACTIVE, State.PREPARING):
        standing = say.standing(found, app.now(), app.zone)
        raise Refused(f"Reservation {found.id} is {found.state.value}: {standing}.")
    return found


def _browse(app: App, found: models.Reservation) -> None:
    if found.state is not State.ACTIVE or not found.url:
        raise Refused(f"Reservation {found.id}: {say.standing(found, app.now(), app.zone)}.")
    url = _address(app, found)
    out(url or "")
    if click.launch(url or "") != 0:
        raise Refused("No browser could be opened.")


def _address(app: App, found: models.Reservation) -> str | None:
    from gpudev_client.config import absolute

    return absolute(found.url, app.client.url) if found.url else None


def _become(app: App, command: list[str]) -> NoReturn:
    """Replaces this process by `ssh`, so that nothing stands between it and the terminal."""
    surroundings = environment(app)
    app.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, surroundings)  # noqa: S606 - no shell, and the path is PATH's


def _setup(app: App, login: str | None) -> Setup:
    from gpudev_client import config
    from gpudev_client.ssh.config import Setup

    return Setup(config.path().absolute(), app.client.url, login)


def _keep_login(setup: Setup) -> None:
    """Writes our file anew where servers have another account than it says."""
    from gpudev_client.ssh import config as ssh

    if ssh.known_login(setup) != setup.login:
        ssh.write(setup.config, ssh.block(setup).encode())


def _some_login(app: App) -> str | None:
    """The account of a server that runs now, or the one that our file knows."""
    from gpudev_client.ssh import config as ssh

    for one in app.client.reservations(states={State.ACTIVE}):
        if one.ssh_host is not None:
            try:
                return app.client.ssh_access(one.id).login
            except Conflict as refusal:
                note(refusal.message, app.error_width)
                break
    return ssh.known_login(_setup(app, None))

"""`gpu-dev ssh-keys ...`: the public keys that open one's servers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpudev_client import words

from . import verbs
from .app import App, Refused, pass_app
from .show import emit_json, out, table

if TYPE_CHECKING:
    from gpudev_client import models

_STDIN = "-"


@click.group("ssh-keys", cls=verbs.Verbs)
def ssh_keys() -> None:
    """Public SSH keys: they open the servers that you may use.

    A change reaches running servers within seconds, open sessions too.
    """


@ssh_keys.command("list")
@verbs.as_json
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List your keys."""
    found = app.client.ssh_keys(app.client.me().name)
    emit_json(found.items) if as_json else out(_listing(app, found.items))


@ssh_keys.command()
@click.argument("file", required=False, metavar="[FILE]")
@verbs.yes
@verbs.as_json
@pass_app
def add(app: App, file: str | None, yes: bool, as_json: bool) -> None:
    """Add public keys: those in FILE, or on standard input (-).

    Without FILE it is the one in ~/.ssh, after a question.
    """
    if file == _STDIN:
        lines = _lines(sys.stdin.read())
    else:
        path = Path(file) if file else _own(app, yes=yes)
        lines = _lines(_read(path))
    if not lines:
        raise Refused("There is no key in that.")
    found = app.client.add_ssh_keys(lines)
    if as_json:
        emit_json(found.items)
        return
    added = " ".join(line.split()[1] for line in lines if len(line.split()) > 1)
    for key in found.items:
        if key.key.split()[1] in added:
            app.tell(f"{_called(key)} opens your servers now.")


@ssh_keys.command()
@click.argument("key")
@verbs.yes
@verbs.as_json
@pass_app
def remove(app: App, key: str, yes: bool, as_json: bool) -> None:
    """Remove a key, named by its fingerprint or its comment."""
    if not app.confirm(f"Remove the key {key}? SSH sessions that it opened end.", yes=yes):
        raise Refused("Nothing was removed.")
    left = app.client.remove_ssh_key(key).items
    if as_json:
        emit_json(left)
    else:
        app.tell(f"The key {key} is removed. {words.counted(len(left), 'key')} left.")


def _own(app: App, *, yes: bool) -> Path:
    """The public key of this machine's account, if there is one and the person means it."""
    found = sorted((Path.home() / ".ssh").glob("id_*.pub"))
    if not found:
        raise Refused(
            "There is no key in ~/.ssh. Make one with `ssh-keygen -t ed25519`, or name a file."
        )
    if len(found) > 1:
        told = ", ".join(f"~/.ssh/{path.name}" for path in found)
        raise Refused(f"There are several keys in ~/.ssh; say which one: {told}.")
    if not app.confirm(f"Add ~/.ssh/{found[0].name}?", yes=yes):
        raise Refused("Nothing was added.")
    return found[0]


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Refused(f"{path} cannot be read: {why}.") from None


def _lines(text: str) -> list[str]:
    """The lines with keys; a private key is one piece, so that it is refused as what it is."""
    if "PRIVATE KEY" in text:
        raise Refused("This is a private key. Give the public one, from the .pub file beside it.")
    kept = [line.strip() for line in text.splitlines()]
    return [line for line in kept if line and not line.startswith("#")]


def _listing(app: App, keys: Sequence[models.SshKey]) -> str:
    if not keys:
        return "No SSH keys. Add one with: gpu-dev ssh-keys add"
    rows = [
        (key.fingerprint, key.type, key.comment, words.ago(key.added_at, app.now())) for key in keys
    ]
    return table(("FINGERPRINT", "TYPE", "COMMENT", "ADDED"), rows, app.width)


def _called(key: models.SshKey) -> str:
    return f"{key.fingerprint} ({key.comment})" if key.comment else key.fingerprint

"""Who you are to which service: `login` and `config`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from gpudev_client import config
from gpudev_client.errors import ConfigError

from . import verbs
from .app import App, Refused, pass_app
from .show import details, emit_json, note, out

if TYPE_CHECKING:
    from gpudev_client import Client, models


@click.command()
@click.option("--url", metavar="ADDRESS", help="Your Hub's address.")
@click.option(
    "--with-token", is_flag=True, help="Take a token from standard input, or ask for it (hidden)."
)
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening a browser.")
@verbs.as_json
@pass_app
def login(app: App, url: str | None, with_token: bool, no_browser: bool, as_json: bool) -> None:
    """Log in through the browser, or with a token.

    Tokens are made on the Hub's page /hub/token. The token is kept in a file that only you can
    read.
    """
    file = config.path()
    stored = config.read(file)
    chosen = _address(app, url, stored)
    token = _given_token(app, chosen) if with_token else _browser(app, chosen, no_browser)
    with app.connect_to(chosen, token) as client:
        me = client.me()
    config.write(file, stored.with_login(chosen, token))
    if as_json:
        emit_json({"url": chosen, "user": me.name, "file": str(file)})
    else:
        app.tell(f"You are {me.name} at {chosen}.")


@click.group("config", cls=verbs.Verbs)
def config_group() -> None:
    """Show and change the configuration."""


@config_group.command("show")
@verbs.as_json
@pass_app
def show_config(app: App, as_json: bool) -> None:
    """Show which service and which token are used, and where that comes from."""
    file = config.path()
    try:
        settings = config.load(app.url)
    except ConfigError:
        if as_json:
            emit_json({"url": None, "token": False, "file": str(file)})
        else:
            out(
                details(
                    [("file", str(file)), ("address", "not set; run `gpu-dev login`")], app.width
                )
            )
        return
    if as_json:
        emit_json(
            {
                "url": settings.url,
                "url_from": settings.url_source,
                "token": settings.token is not None,
                "token_from": settings.token_source if settings.token else None,
                "file": str(file),
            }
        )
        return
    token = f"yes, from {settings.token_source}" if settings.token else "none; run `gpu-dev login`"
    out(
        details(
            [
                ("address", f"{settings.url} (from {settings.url_source})"),
                ("token", token),
                ("file", str(file)),
            ],
            app.width,
        )
    )


@config_group.command("set")
@click.argument("key", type=click.Choice(["url"]))
@click.argument("value")
@pass_app
def set_config(app: App, key: str, value: str) -> None:
    """Set the address of the service: `gpu-dev config set url ADDRESS`.

    A token that was stored for that address is used again.
    """
    from dataclasses import replace

    del key  # there is one key so far; the argument refuses any other by name
    file = config.path()
    chosen = config.service_url(value)
    stored = config.read(file)
    config.write(file, replace(stored, url=chosen))
    app.tell(f"The address is {chosen}.")
    if chosen not in stored.tokens:
        note("There is no token for it yet: run `gpu-dev login`.", app.error_width)


@config_group.command("check")
@verbs.as_json
@pass_app
def check_config(app: App, as_json: bool) -> None:
    """Ask the service who you are, and show your limits."""
    me = app.client.me()
    if as_json:
        emit_json({"url": app.client.url, **me.model_dump()})
        return
    out(details(_about(app.client, me), app.width))


def _about(client: Client, me: models.Me) -> list[tuple[str, str | None]]:
    policy = me.policy

    def limit(value: int | None) -> str:
        return "no limit" if value is None else str(value)

    return [
        ("address", client.url),
        ("you are", me.name + (" (admin)" if me.admin else "")),
        ("groups", ", ".join(me.groups)),
        ("hours at once", f"{policy.max_hours:g}"),
        ("hours with extensions", f"{policy.max_total_hours:g}"),
        ("reservations", limit(policy.max_reservations)),
        ("GPUs", limit(policy.max_gpus)),
        ("GPUs of a type at once", limit(policy.max_running_gpus)),
        ("disks", limit(policy.max_disks)),
        ("GB of a disk", limit(policy.max_disk_gb)),
        ("deleted disks kept", f"{policy.disk_retention_days} days"),
    ]


def _address(app: App, url: str | None, stored: config.Stored) -> str:
    import os

    for given in (url, app.url, os.environ.get("GPUDEV_URL"), stored.url):
        if given:
            return config.service_url(given)
    if not app.interactive():
        raise click.UsageError("Say which Hub with --url ADDRESS.")
    answer: str = click.prompt("Address of your Hub", value_proc=config.service_url, err=True)
    return answer


def _given_token(app: App, url: str) -> str:
    if app.interactive():
        note(f"Make a token at {config.hub_url(url)}/hub/token", app.error_width)
        token: str = click.prompt("Token", hide_input=True, err=True)
    else:
        token = sys.stdin.readline(4096)
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Refused("That is no token.")
    return token


def _browser(app: App, url: str, no_browser: bool) -> str:
    from .browser import Login, receive

    attempt = Login.fresh()
    with receive(attempt) as listener:
        address = attempt.address(url, listener.port)
        opened = not no_browser and app.interactive() and click.launch(address) == 0
        note("Confirm the login in your browser." if opened else "Open this in your browser:")
        note(address)  # never wrapped: it has to be copied whole
        if not opened:
            hub = config.hub_url(url)
            note(
                "The browser must run on this machine. Otherwise make a token at "
                f"{hub}/hub/token and use `gpu-dev login --with-token`.",
                app.error_width,
            )
        code = listener.wait()
    with app.connect_to(url, None) as client:
        return client.exchange_login_code(code, attempt.verifier).token

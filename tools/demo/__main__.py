"""Starts the demo and stays until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from gpudev_client import Client, GpuDevError, words
from gpudev_client.models import GpuType
from gpudev_hub_config.roles import ACCESS

from . import leases
from .parts import PartFailed, Parts
from .place import (
    ADMIN,
    USERS,
    DirectoryUnusable,
    Place,
    PortTaken,
    hold,
    prepare,
    write_private,
)

#: Days that ada's token for the command line lives.
TOKEN_DAYS = 30
#: What it may do: what ada may do at gpudev, and nothing at the Hub.
TOKEN_SCOPES = [ACCESS, f"custom:gpudev:reserve!user={USERS[0]}"]


class Ended(Exception):  # noqa: N818 - what happened
    """Somebody asked the demo to end."""


def main() -> int:
    """0 after Ctrl-C, 1 when a part does not start or ends by itself."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    directory = Path(os.environ.get("DEMO_DIR") or ".demo").absolute()
    try:
        with hold(directory):
            return _run(directory)
    except DirectoryUnusable as error:
        say(str(error))
        return 1
    except Ended:  # before there was anything to end
        return 0


def _run(directory: Path) -> int:
    """The demo's life in a directory that is ours."""
    try:
        place = prepare(directory, _port(os.environ.get("DEMO_PORT") or "8000"))
    except PortTaken as error:
        say(
            f"Port {error} is in use by another program (or by another demo). "
            f"Choose another one, for example: make demo DEMO_PORT={int(str(error)) + 1}"
        )
        return 1
    parts = Parts(place)
    began = time.monotonic()
    farewell = False
    try:
        bring_up(parts)
        say_some(leases.resume(place))
        say(f"Ready after {words.duration(time.monotonic() - began)}.")
        introduce(place)
        while True:
            parts.check()
            time.sleep(1.0)
    except Ended:
        farewell = True
        say("\nEnding the demo …")
    except PartFailed as error:
        say(f"\n{error}")
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if farewell:
            say_some(leases.farewell(place))
        ended = time.monotonic()
        parts.end()
        took = words.duration(time.monotonic() - ended)
        say(f"All that it started has ended ({took}). Its data stays in {directory}.")
    return 0


def bring_up(parts: Parts) -> None:
    """Starts everything and returns when all of it answers."""
    place = parts.place
    say(f"Starting the proxy at {place.url} …")
    parts.start_proxy()
    parts.wait_for("The proxy", place.url, lambda _: True)
    say("Starting the Hub and the reservation service …")
    parts.start_hub()
    parts.wait_for("The Hub", f"{place.url}/hub/health", lambda answer: answer.is_success)
    parts.wait_for(
        "The reservation service",
        f"{place.service_url}/api/v1/health",
        lambda answer: answer.is_success,
    )
    write_environment(place)


def write_environment(place: Place) -> None:
    """`env` in the demo's directory: what the command line needs to act as ada."""
    path = place.directory / "env"
    token = _kept_token(path) or _new_token(place)
    lines = {"GPUDEV_URL": place.service_url, "GPUDEV_TOKEN": token}
    write_private(path, "".join(f"{k}={shlex.quote(v)}\n" for k, v in lines.items()))


def _kept_token(path: Path) -> str | None:
    """The token of the last start, while it works: a new one each time would pile up."""
    if not path.exists():
        return None
    kept = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    url, token = kept.get("GPUDEV_URL", ""), kept.get("GPUDEV_TOKEN", "")
    if not url or not token:
        return None
    headers = {"Authorization": f"token {token}"}
    try:
        answer = httpx.get(f"{url}/api/v1/me", headers=headers, trust_env=False)
    except httpx.HTTPError:
        return None
    return token if answer.is_success else None


def _new_token(place: Place) -> str:
    answer = httpx.post(
        f"{place.url}/hub/api/users/{USERS[0]}/tokens",
        headers={"Authorization": f"token {leases.token(place)}"},
        json={
            "note": "the demo's command line",
            "expires_in": TOKEN_DAYS * 86400,
            "scopes": TOKEN_SCOPES,
        },
        trust_env=False,
    )
    if not answer.is_success:
        raise PartFailed(f"The Hub made no token for {USERS[0]} (status {answer.status_code}).")
    body: dict[str, Any] = answer.json()
    return str(body["token"])


def introduce(place: Place) -> None:
    """What there is and what to try."""
    environment = shown(place.directory / "env")
    queue, command = examples(_gpu_types(place))
    most = words.gpus(queue.gpus_per_node, queue.label)
    say(
        f"""
  Open     {place.url}
  Log in   {", ".join(USERS)} or the admin {ADMIN}; the password of all is  {place.password}

  Try
    1. As {USERS[0]}: "Reserve GPUs", pick a type, a count and a disk; JupyterLab opens on them.
    2. As {USERS[1]}, in a private window: ask for {most}, then as {USERS[0]} for one more,
       and see the place in the queue with its promised start.
    3. "My reservations": extend, cancel, look at the disk's snapshots.
    4. From a second terminal, as {USERS[0]}:
         set -a; . {environment}; set +a
         .venv/bin/gpu-dev avail
         .venv/bin/gpu-dev reserve --gpu-type {command.name} --gpus 1 --hours 0.5

  Logs are in {shown(place.logs)}. Ctrl-C ends the demo and everything that it started;
  leases that still run then are taken up again by the next start.
"""
    )


def examples(types: Sequence[GpuType]) -> tuple[GpuType, GpuType]:
    """The type of which one person takes a whole node, so that the next one waits, and one for
    the command line: another one, where this machine has two."""
    with_gpus = [one for one in types if one.gpus_per_node]
    queue = max(with_gpus, key=lambda one: one.gpus_per_node)
    return queue, next((one for one in with_gpus if one.name != queue.name), queue)


def _gpu_types(place: Place) -> list[GpuType]:
    try:
        with Client(place.service_url, leases.token(place)) as client:
            return client.gpu_types().all()
    except GpuDevError as error:
        raise PartFailed(f"The reservation service does not say what it has: {error}") from error


def shown(path: Path) -> Path:
    """A path as short as it can be typed here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def say(text: str) -> None:
    print(text, flush=True)


def say_some(text: str) -> None:
    """Says `text`, if there is any."""
    if text:
        say(text)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:  # noqa: PLR2004
        say(f"DEMO_PORT is a port number between 1 and 65535, not {text!r}.")
        sys.exit(2)
    return int(text)


def _ended(number: int, frame: FrameType | None) -> None:
    raise Ended


if __name__ == "__main__":
    sys.exit(main())

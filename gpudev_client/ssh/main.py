"""From a host name to an open SSH connection: what `ssh` runs as its ProxyCommand.

    python -I -S .../gpudev_client/ssh --config FILE [--login NAME] [--fdpass] gpudev-ID

Asks the service for the way in, writes the server's host keys down where `ssh` looks for them,
opens the WebSocket, and either hands the connection to `ssh` (`--fdpass`) or relays.
"""

from __future__ import annotations

import os
import sys
import time

from . import frames, hosts, relay, service, waiting
from .problems import Lost, Problem
from .wire import Address, Answer, Connection

HELP = "usage: gpu-dev proxy [--config FILE] [--login NAME] [--fdpass] gpudev-ID"
#: Seconds for which a server that is starting is waited for, and between two questions.
PATIENCE = 600.0
PAUSE = 1.0
#: Seconds for which a server is waited for that the service takes for running.
RETURN = 60.0
#: Seconds until the server's first words; a way that does not let `RAW` through is left then.
FIRST_WORDS = 6.0
_SWITCHING, _FORBIDDEN, _BUSY = 101, 403, 503
_INTERRUPTED = 130


class Options:
    """What the arguments say."""

    def __init__(self, arguments: list[str]) -> None:
        self.config: str | None = None
        self.login: str | None = None
        self.fdpass = False
        rest = list(arguments)
        while rest and rest[0].startswith("--"):
            option = rest.pop(0)
            if option == "--fdpass":
                self.fdpass = True
            elif option in {"--config", "--login"} and rest:
                value = rest.pop(0)
                self.config, self.login = (
                    (value, self.login) if option == "--config" else (self.config, value)
                )
            else:
                raise Problem(HELP)
        if len(rest) != 1:
            raise Problem(HELP)
        self.host = rest[0]


def main(arguments: list[str]) -> int:
    try:
        options = Options(arguments)
        prefix = hosts.reservation_of(options.host)
        settings = service.settings(options.config)
        return _connect(options, prefix, settings)
    except Problem as problem:
        _say(str(problem))
        return 1
    except OSError as error:
        _say(f"The connection was lost ({error.strerror or type(error).__name__}).")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted.")
        return _INTERRUPTED


def _connect(options: Options, prefix: str, settings: service.Settings) -> int:
    modes = [frames.FRAMES] if os.environ.get("GPUDEV_SSH_FRAMES") else [frames.RAW, frames.FRAMES]
    with service.Service(settings) as there:
        reservation = there.resolve(prefix)
        access, connection, answer = _enter(there, reservation, modes)
        _check_login(options, access)
        hosts.write_known(settings.folder, options.host, access.host_keys)
        if answer.headers["sec-websocket-protocol"] == frames.RAW:
            raw = relay.Raw(connection.sock, answer.rest)
            if raw.speaks(FIRST_WORDS):
                return _hand_over(options, raw)
            connection.close()
            _, connection, answer = _enter(there, reservation, [frames.FRAMES])
        return _hand_over(options, relay.Framed(connection.sock, answer.rest))


def _hand_over(options: Options, way: relay.Way) -> int:
    plain = way.plain_socket()
    if options.fdpass and plain is not None:
        relay.pass_socket(plain)
        return 0
    code = relay.run_behind(way) if options.fdpass else relay.run(way, 0, 1)
    if code != 0:
        raise Problem(
            "The connection was closed before the server had said anything. Something between here "
            "and the Hub may not let WebSockets through; try again, or from another network."
        )
    return code


def _enter(
    there: service.Service, reservation: str, modes: list[str]
) -> tuple[service.Access, Connection, Answer]:
    """The way in, and the WebSocket at its end. A server that has crashed and starts again, or has
    a restarted proxy in front, is not there for a moment; the service says when it is over."""
    deadline = time.monotonic() + RETURN
    told = False
    while True:
        access = _access(there, reservation)
        try:
            return access, *_open(there.take(), access, modes)
        except _NotThere:
            if time.monotonic() > deadline:
                raise
            if not told:
                _say("The server does not answer yet. Waiting; Ctrl-C ends it.")
                told = True
        time.sleep(PAUSE)


class _NotThere(Problem):
    """Nobody, or somebody else, answers at the server's address."""


def _access(there: service.Service, reservation: str) -> service.Access:
    """Asks for the way in, and again while the server is still starting."""
    began = time.monotonic()
    deadline = began + PATIENCE
    progress = waiting.Progress()
    while True:
        try:
            return there.access(reservation)
        except service.NotReady as not_ready:
            if time.monotonic() > deadline:
                raise Problem(f"{not_ready} Waited {PATIENCE / 60:.0f} minutes for it.") from None
            said = progress.next(str(not_ready), time.monotonic() - began)
            if said is not None:
                _say(said)
        time.sleep(PAUSE)


def _check_login(options: Options, access: service.Access) -> None:
    if options.login is not None and options.login != access.login:
        raise Problem(
            f"The account on {access.host} is {access.login!r}, which your SSH configuration does "
            "not know yet. Run `gpu-dev ssh-config` and connect again."
        )


def _open(
    connection: Connection | None, access: service.Access, modes: list[str]
) -> tuple[Connection, Answer]:
    address = Address(access.url)
    fresh = connection is None or connection.address.origin != address.origin
    chosen = Connection(address) if connection is None or fresh else connection
    headers = {"Gpudev-Ticket": access.ticket}
    try:
        answer = chosen.upgrade(address.path, headers, modes)
    except Lost:
        if fresh:
            raise
        # The connection of the question before had been closed meanwhile. A ticket that did get
        # there is used up, and the answer says so.
        chosen = Connection(address)
        answer = chosen.upgrade(address.path, headers, modes)
    if answer.status == _SWITCHING:
        return chosen, answer
    said = service.words(answer)
    if answer.status in (_FORBIDDEN, _BUSY) and said:
        raise Problem(said)
    chosen.close()
    raise _NotThere(
        f"The server of {access.host} does not answer (status {answer.status}); it has been "
        "stopped, or is being started again."
    )


def _say(sentence: str) -> None:
    if sentence.count("Z") and sentence.count(":"):
        # Perhaps a moment, as the service marks it; it is shown in this machine's zone.
        from datetime import UTC, datetime

        from gpudev_client import words

        sentence = words.told(sentence, datetime.now(UTC))
    text = "".join(c if c.isprintable() else "?" for c in sentence)
    sys.stderr.write(f"gpu-dev: {text}\r\n" if sys.stderr.isatty() else f"gpu-dev: {text}\n")
    sys.stderr.flush()

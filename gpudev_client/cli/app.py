"""What every verb needs: the client, the clock, the streams, and one way to end in words."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click

from gpudev_client import interrupts, words
from gpudev_client.errors import ConfigError, GpuDevError, RefusalError, ServerFault

if TYPE_CHECKING:
    from gpudev_client import Client

INTERRUPTED = 130


class App:
    """The context of one run of the command.

    Args:
        connect: makes a client from address and token.
        now: the clock, in UTC.
        zone: the viewer's zone; None is this machine's.
        width: columns to fit into; by default the terminal's, or no limit where there is none.
    """

    def __init__(
        self,
        connect: Callable[[str, str | None], Client] | None = None,
        *,
        now: Callable[[], datetime] | None = None,
        zone: tzinfo | None = None,
        width: int | None = None,
    ) -> None:
        self.url: str | None = None
        self.debug = False
        self.zone = zone
        self.connect_to = connect or _connect
        self._now = now or (lambda: datetime.now(UTC))
        self._width = width
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            with interrupts.held():
                self._client = self._configured()
        return self._client

    def _configured(self) -> Client:
        from gpudev_client import config

        settings = config.load(self.url)
        if settings.token is None:
            raise ConfigError(
                f"There is no token for {settings.url}. Run `gpu-dev login`, or set GPUDEV_TOKEN."
            )
        return self.connect_to(settings.url, settings.token)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def now(self) -> datetime:
        return self._now()

    def told(self, text: str) -> str:
        """A sentence of the service, its moments in the viewer's zone."""
        return words.told(text, self.now(), self.zone)

    @property
    def width(self) -> int | None:
        """Columns of standard output; None where lines may be as long as they are."""
        return self._columns(sys.stdout)

    @property
    def error_width(self) -> int | None:
        """The same for standard error, where progress and questions go."""
        return self._columns(sys.stderr)

    @property
    def colour(self) -> bool:
        return may_colour(sys.stdout)

    def interactive(self, no_interactive: bool = False) -> bool:
        """Whether questions may be asked."""
        return not no_interactive and sys.stdin.isatty() and sys.stderr.isatty()

    def tell(self, sentence: str) -> None:
        """An answer in words, on standard output."""
        from .show import out, wrapped

        out(wrapped(sentence, self.width))

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask before something that cannot simply be taken back."""
        if yes:
            return True
        if not self.interactive():
            raise click.UsageError("There is no terminal to ask on. Add --yes to go ahead.")
        return click.confirm(question, err=True)

    def _columns(self, stream: Any) -> int | None:
        if self._width is not None:
            return self._width
        if not stream.isatty():
            return None
        return shutil.get_terminal_size().columns  # COLUMNS, the terminal's own, or 80


pass_app = click.make_pass_decorator(App)


def may_colour(stream: Any) -> bool:
    """Colour only on a terminal that can and a person who did not say no."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and bool(stream.isatty())


def _connect(url: str, token: str | None) -> Client:
    with interrupts.held():  # long enough to be met, and an import loses it
        from gpudev_client import Client

    return Client(url, token)


class Refused(click.ClickException):
    """Ends the command with a sentence on standard error and exit code 1. `width` is what it is
    wrapped to."""

    width: int | None = None

    def format_message(self) -> str:
        from .show import wrapped

        # "Error: " comes in front.
        return wrapped(self.message, self.width, first=len("Error: "))


def in_words(error: GpuDevError) -> str:
    """An error with what would help, for a person."""
    if isinstance(error, RefusalError):
        return _refusal_in_words(error)
    if isinstance(error, ServerFault) and error.request_id and error.request_id not in str(error):
        return f"{error} (request {error.request_id})"
    return str(error)


def _refusal_in_words(error: RefusalError) -> str:
    message = error.message
    if error.code == "not_authenticated" and "gpu-dev login" not in message:
        message = f"{message} Run `gpu-dev login` for a new token."
    told = _accepted(error.accepted, message)
    return f"{message} Accepted: {told}." if told else message


def _accepted(accepted: Any, message: str) -> str:
    """What would be accepted, as far as the message does not say it already."""
    if isinstance(accepted, dict):
        values = [_number(value) for value in accepted.values() if value is not None]
    elif isinstance(accepted, (list, tuple)):
        values = [_number(value) for value in accepted]
    else:
        values = [] if accepted is None else [_number(accepted)]
    missing = [value for value in values if value not in message]
    if isinstance(accepted, dict) and {"min", "max"} <= accepted.keys() and missing:
        return f"{_number(accepted['min'])} to {_number(accepted['max'])}"
    return ", ".join(missing)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

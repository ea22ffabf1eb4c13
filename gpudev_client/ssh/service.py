"""The one question to the service: the way into a reservation's server.

Address and token come from the same places as for the rest of the command (`gpudev_client.config`,
which takes too long to import for the usual case: the file that `gpu-dev login` writes).
"""

from __future__ import annotations

import json
import os
from typing import Any

from . import hosts
from .problems import Lost, Problem
from .wire import Address, Answer, Connection

_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 200, 401, 403, 404, 429
_OPEN_TO_OTHERS = 0o077
_FORMAT = 1


class NotReady(Problem):
    """The server is still starting; ask again."""


class Settings:
    """Where the service is, the token for it, and the folder for our own files."""

    def __init__(self, url: str, token: str, folder: str) -> None:
        self.url, self.token, self.folder = url, token, folder

    def __repr__(self) -> str:
        return f"Settings({self.url!r})"


class Access:
    """The way in, as `models.SshAccess` has it."""

    def __init__(self, content: dict[str, Any]) -> None:
        try:
            self.host = str(content["host"])
            self.login = str(content["login"])
            self.url = str(content["url"])
            self.ticket = str(content["ticket"])
            self.host_keys = [str(key) for key in content["host_keys"]]
        except (KeyError, TypeError) as error:
            raise Problem(
                "The service answered in a way that this version does not know."
            ) from error


def settings(config: str | None) -> Settings:
    """From the environment and the file; `config` is the file's path."""
    file = config or os.environ.get("GPUDEV_CONFIG")
    if not file or os.environ.get("GPUDEV_URL"):
        return _all_sources(file)
    stored = _read(file)
    url = stored.get("url")
    if not isinstance(url, str) or not url:
        raise Problem("No Hub is known yet. Run `gpu-dev login --url ADDRESS-OF-YOUR-HUB`.")
    tokens = stored.get("tokens")
    token = os.environ.get("GPUDEV_TOKEN") or (
        tokens.get(url) if isinstance(tokens, dict) else None
    )
    return _complete(url, token, file)


def _all_sources(file: str | None) -> Settings:
    """The slow way round, over `gpudev_client.config`."""
    from gpudev_client import config
    from gpudev_client.errors import ConfigError

    if file:
        os.environ["GPUDEV_CONFIG"] = file
    try:
        found = config.load()
        return _complete(found.url, found.token, str(config.path()))
    except ConfigError as error:
        raise Problem(str(error)) from error


def _complete(url: str, token: object, file: str) -> Settings:
    if not isinstance(token, str) or not token:
        raise Problem(f"There is no token for {url}. Run `gpu-dev login`.")
    folder = os.path.join(os.path.dirname(os.path.abspath(file)), "ssh")  # noqa: PTH100, PTH118, PTH120
    return Settings(url, token, folder)


def _read(file: str) -> dict[str, Any]:
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116
        with open(file, encoding="utf-8") as text:  # noqa: PTH123
            content = json.load(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Problem(f"The configuration file {file} cannot be read.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise Problem(f"The configuration file {file} is damaged. Run `gpu-dev login` again.")
    if content.get("tokens") and mode & _OPEN_TO_OTHERS:
        raise Problem(
            f"The configuration file {file} holds a token and is open to other people of this "
            f"machine, so it is not used. Run: chmod 600 {file}"
        )
    return content


class Service:
    """The service at the Hub, over one connection that the WebSocket goes on with."""

    def __init__(self, known: Settings) -> None:
        self._settings = known
        self._address = Address(known.url)
        self.connection: Connection | None = None

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection is not None:
            self.connection.close()

    def take(self) -> Connection | None:
        """Gives the connection away; the next question makes another."""
        taken, self.connection = self.connection, None
        return taken

    def access(self, reservation: str) -> Access:
        """The way into a server.

        Raises:
            NotReady: it is starting.
            Problem: there is none, with the reason.
        """
        content = self._call("POST", f"/reservations/{reservation}/ssh")
        return Access(content)

    def resolve(self, prefix: str) -> str:
        """The id that begins with `prefix`, among the reservations that live."""
        if len(prefix) == hosts.ID_LENGTH:
            return prefix
        live = "&".join(
            f"state={state}" for state in ("scheduled", "queued", "preparing", "active")
        )
        items = self._call("GET", f"/reservations?limit=200&{live}").get("items") or []
        found = sorted({str(item["id"]) for item in items if str(item["id"]).startswith(prefix)})
        if len(found) == 1:
            return found[0]
        if found:
            raise Problem(f"{prefix!r} fits more than one reservation: {', '.join(found)}.")
        raise Problem(f"You have no live reservation whose id begins with {prefix!r}.")

    def _call(self, method: str, path: str) -> dict[str, Any]:
        answer = self._request(method, f"{self._address.path}/api/v1{path}")
        if answer.status != _OK:
            raise self._problem(answer)
        try:
            content = json.loads(answer.body)
        except ValueError as error:
            raise Problem(f"{self._address} answered, but not as gpudev does.") from error
        if not isinstance(content, dict):
            raise Problem(f"{self._address} answered, but not as gpudev does.")
        return content

    def _request(self, method: str, path: str) -> Answer:
        headers = {"Authorization": f"token {self._settings.token}", "Accept": "application/json"}
        if method == "POST":
            headers["Idempotency-Key"] = os.urandom(16).hex()
        if self.connection is not None:
            try:
                return self.connection.request(method, path, headers)
            except Lost:
                self.connection.close()  # it had been idle: once more on a fresh one
        self.connection = Connection(self._address)
        answer = self.connection.request(method, path, headers)
        if answer.headers.get("connection", "").lower() == "close":
            self.connection.close()
            self.connection = None
        return answer

    def _problem(self, answer: Answer) -> Problem:
        code, said = _error(answer)
        if code == "server_not_ready":
            return NotReady(said)
        if answer.status == _UNAUTHORIZED:
            return Problem("Your token is not valid any more. Run `gpu-dev login` for a new one.")
        if said:
            return Problem(said)
        if answer.status == _NOT_FOUND:
            return Problem(f"There is no gpudev at {self._address}.")
        return Problem(
            f"The Hub at {self._address} cannot help now (status {answer.status}); try again soon."
        )


def words(answer: Answer) -> str:
    """The sentence of a refusal; empty where it is none of ours."""
    return _error(answer)[1]


def _error(answer: Answer) -> tuple[str, str]:
    try:
        error = json.loads(answer.body)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", ""  # somebody else's answer: a proxy's page, the Hub's

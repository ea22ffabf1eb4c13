"""Where the service is and which token to use, from arguments, environment and one file.

Order: what is given, then `GPUDEV_URL` and `GPUDEV_TOKEN`, then inside a server `GPUDEV_URL` and
`JUPYTERHUB_API_TOKEN`, then the file that `gpu-dev login` writes. A token goes only to the address
that it was given or stored for. Standard library only (platformdirs when the file is touched).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

from .errors import ConfigError

#: The service's name in the Hub, thus in its address.
SERVICE = "gpudev"
#: What a host name may be made of, and an IPv6 address between its brackets.
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+")
_HUB_PARTS = frozenset({"hub", "user", "services"})
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Stored:
    """What the file holds: the address last logged in to, and a token per address."""

    url: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def with_login(self, url: str, token: str) -> Stored:
        """The same with a token for `url`, which becomes the address in use."""
        return replace(self, url=url, tokens={**self.tokens, url: token})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs. The sources say where each came from, in words."""

    url: str
    token: str | None = field(repr=False)
    url_source: str
    token_source: str


def service_url(text: str) -> str:
    """The service's address from whatever address of the Hub or the service a person has.

    `hub.example.org`, `https://hub.example.org/hub/home`, `http://127.0.0.1:8000/base/` and
    `https://hub.example.org/services/gpudev/api/v1` all work. Without a scheme it is https, or
    http on this machine. Raises ConfigError for anything that is no http address.
    """
    cleaned = text.strip()
    try:
        if "://" not in cleaned:
            scheme = "http" if _is_local(urlsplit(f"//{cleaned}").hostname) else "https"
            cleaned = f"{scheme}://{cleaned}"
        parts = urlsplit(cleaned)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{text!r} is not an address.") from error
    if parts.scheme not in ("http", "https") or not host or not _HOST.fullmatch(host):
        raise ConfigError(f"{text!r} is not an http or https address.")
    if " " in cleaned or not cleaned.isprintable() or "\\" in cleaned:
        raise ConfigError(f"{text!r} is not an address.")
    if "@" in parts.netloc:
        raise ConfigError("An address must not contain a user name or password.")
    name = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = name if port in (None, default) else f"{name}:{port}"
    return urlunsplit((parts.scheme, netloc, _service_path(parts.path), "", ""))


def hub_url(service: str) -> str:
    """The Hub's address (with its base path, without a final slash) from the service's."""
    parts = urlsplit(service)
    base = parts.path.rsplit("/services/", 1)[0]
    return urlunsplit((parts.scheme, parts.netloc, base, "", ""))


def absolute(url: str, service: str) -> str:
    """A server's address as a browser takes it; the service may give it without the host."""
    return urljoin(service, url)


def resolve(
    environ: Mapping[str, str],
    stored: Stored,
    url: str | None = None,
    token: str | None = None,
) -> Settings:
    """Address and token from all sources; pure. Raises ConfigError when there is no address."""
    from_environment = service_url(environ["GPUDEV_URL"]) if environ.get("GPUDEV_URL") else None
    chosen, source = _first(
        (service_url(url) if url else None, "given"),
        (from_environment, "GPUDEV_URL"),
        (service_url(stored.url) if stored.url else None, "configuration file"),
    )
    if chosen is None:
        raise ConfigError(
            "No service is known yet. Run `gpu-dev login --url ADDRESS-OF-YOUR-HUB`, "
            "or set GPUDEV_URL and GPUDEV_TOKEN."
        )
    # A token from the environment belongs to the address from there, if there is one.
    fits = from_environment in (None, chosen)
    found, token_source = _first(
        (token, "given"),
        (environ.get("GPUDEV_TOKEN") if fits else None, "GPUDEV_TOKEN"),
        (
            environ.get("JUPYTERHUB_API_TOKEN") if from_environment == chosen else None,
            "the server's own token",
        ),
        (stored.tokens.get(chosen), "configuration file"),
    )
    return Settings(chosen, found, source, token_source)


def load(url: str | None = None, token: str | None = None) -> Settings:
    """`resolve` with this process's environment and the person's file.

    The file is read only where arguments and environment leave something open.
    """
    try:
        settings = resolve(os.environ, Stored(), url, token)
    except ConfigError:
        if url or os.environ.get("GPUDEV_URL"):
            raise
    else:
        if settings.token is not None:
            return settings
    return resolve(os.environ, read(path()), url, token)


def path() -> Path:
    """The configuration file; `GPUDEV_CONFIG` puts it elsewhere."""
    if given := os.environ.get("GPUDEV_CONFIG"):
        return Path(given)
    import platformdirs

    return platformdirs.user_config_path(SERVICE, appauthor=False) / "config.json"


def read(file: Path) -> Stored:
    """What the file holds; nothing where there is none.

    Raises ConfigError for a file that others can read, or that is not ours.
    """
    try:
        mode = file.stat().st_mode
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return Stored()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} cannot be read.") from error
    try:
        stored = _parse(text)
    except ValueError as error:
        raise ConfigError(
            f"The configuration file {file} is damaged. Remove it and run `gpu-dev login` again."
        ) from error
    if stored.tokens and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"The configuration file {file} holds a token and is open to other people of this "
            f"machine, so it is not used. Run: chmod 600 {file}"
        )
    return stored


def write(file: Path, stored: Stored) -> None:
    """Replace the file at once, readable by its owner only."""
    target = file.resolve()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"format": _FORMAT, "url": stored.url, "tokens": dict(stored.tokens)}
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".config-")  # mode 600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(content, out, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _parse(text: str) -> Stored:
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError("not a configuration of this version")
    url, tokens = content.get("url"), content.get("tokens")
    if not (url is None or isinstance(url, str)) or not isinstance(tokens, dict):
        raise ValueError("not a configuration")
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in tokens.items()):
        raise ValueError("tokens are texts")
    return Stored(url, tokens)


def _first(*candidates: tuple[str | None, str]) -> tuple[str | None, str]:
    return next((pair for pair in candidates if pair[0]), (None, "nowhere"))


def _service_path(given: str) -> str:
    parts = [part for part in given.split("/") if part]
    name = SERVICE
    for index, part in enumerate(parts):
        if part in _HUB_PARTS:
            if part == "services" and index + 1 < len(parts):
                name = parts[index + 1]
            parts = parts[:index]
            break
    return "/" + "/".join([*parts, "services", name])


def _is_local(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False

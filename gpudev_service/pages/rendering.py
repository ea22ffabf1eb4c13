"""Templates, and how times and sizes get into them.

Every value is escaped by the templates themselves. A time is written in words for UTC, with its
zone, inside a `<time>` that carries the exact moment and the kind of words; the script says the
same words in the viewer's zone and keeps them current.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType

import jinja2
from markupsafe import Markup

from gpudev_client import words

STATIC = Path(__file__).parent / "static"


def _left(at: datetime, now: datetime) -> str:
    return words.time_left(at, now, UTC, show_zone=True)


def _start(at: datetime, now: datetime) -> str:
    return words.start_in_words(at, now, UTC, show_zone=True)


def _moment(at: datetime, now: datetime) -> str:
    return words.moment(at, now, UTC, show_zone=True)


def _at_moment(at: datetime, now: datetime) -> str:
    return words.at_moment(at, now, UTC, show_zone=True)


#: The kinds of words for a time; the script has a function of the same name for each.
KINDS: Mapping[str, Callable[[datetime, datetime], str]] = MappingProxyType(
    {"left": _left, "start": _start, "moment": _moment, "at": _at_moment, "ago": words.ago}
)


def when(at: datetime | None, now: datetime, kind: str = "moment") -> str:
    """A time as a `<time>` element; for None what there is to say without one."""
    if at is None:
        return words.start_in_words(None, now) if kind == "start" else ""
    exact = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" data-words="{}">{}</time>').format(
        exact, kind, KINDS[kind](at, now)
    )


def told(text: str | None, now: datetime) -> str:
    """A sentence of the service, its moments as `<time>` elements."""
    parts = words.pieces(text or "")
    return Markup("").join(part if isinstance(part, str) else when(part, now) for part in parts)


@cache
def _version(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:16]


def asset(name: str) -> str:
    """The address of a style sheet or script below the pages' prefix; it changes with the content,
    so that browsers may keep it."""
    return f"static/{name}?v={_version(name)}"


def _environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"size": words.size, "hours": words.hours}
    env.globals |= {"counted": words.counted, "gpus": words.gpus, "asset": asset}
    env.globals |= {"when": when, "told": told}
    return env


_ENVIRONMENT = _environment()


def render(template: str, **values: object) -> str:
    """A template as text."""
    return _ENVIRONMENT.get_template(template).render(**values)

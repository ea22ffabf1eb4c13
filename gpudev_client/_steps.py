"""What a flow may ask of its driver.

A flow is a generator: it yields one of these steps and is sent what came of it. It never touches
the network or a clock, so the same flow runs under the sync and the async driver, and a test can
play the driver by hand.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request; the driver sends back a `Reply` or throws `Unreachable`.

    `path` is below the API's base and its segments are quoted already. With `stream` an answer of
    2xx stays open for `Read` steps, and counts as cut after `silence` seconds without a byte, or
    after the transport's own limit where that is shorter.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    silence: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Read:
    """The next bytes of the open stream; the driver sends `b""` at its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand a value to whoever iterates."""

    value: Any


Step: TypeAlias = Call | Read | Pause | Emit
Flow: TypeAlias = Generator[Step, Any, T]

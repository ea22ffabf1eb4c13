"""Opaque cursors of paginated lists. A cursor that we did not make is refused, never guessed at."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from gpudev_service.errors import Refusal


def of_moment_and_id(at: datetime, key: str) -> str:
    return _pack([at.astimezone(UTC).isoformat(), key])


def moment_and_id(cursor: str) -> tuple[datetime, str]:
    match _unpack(cursor):
        case [str(at), str(key)]:
            try:
                moment = datetime.fromisoformat(at)
            except ValueError:
                raise _bad() from None
            if moment.tzinfo is not None:
                return moment, key
    raise _bad()


def of_number(number: int) -> str:
    return _pack([number])


def number(cursor: str) -> int:
    match _unpack(cursor):
        case [int(value)] if 0 <= value < 2**63:
            return value
    raise _bad()


def _pack(parts: list[Any]) -> str:
    raw = json.dumps(parts, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpack(cursor: str) -> Any:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise _bad() from None


def _bad() -> Refusal:
    return Refusal(
        "invalid_input",
        "This cursor is not one of ours. Take `next_cursor` of the page before, or leave it out.",
        field="cursor",
    )

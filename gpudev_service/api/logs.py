"""Structured logs: one JSON object per line, one line per request, never a credential.

Requests are logged by their route's name, not by their address: query strings and bodies do not
reach the log at all. What libraries log is searched for credentials before it is written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tornado.web import RequestHandler

access = logging.getLogger("gpudev.access")

#: Longest line; what a caller can influence is cut far below it.
LINE_MAX = 1000
_TRACE_MAX = 4000

_SECRETS = (
    # Headers, however they are written: to the end of the line.
    re.compile(r"((?:authorization|cookie)['\"]?\s*[:=]\s*)[^\n]+", re.IGNORECASE),
    re.compile(r"(\b(?:token|bearer)\s+)[\w.~+/=-]{12,}", re.IGNORECASE),
    re.compile(r"([?&](?:token|_xsrf|code|state|password)=)[^\s&'\"]+", re.IGNORECASE),
)
#: Lines of JupyterHub's helpers that come with every request or carry parts of cookies.
_NOISE = ("Skipping XSRF check", "Setting new xsrf cookie", "No Hub user identified")


def redact(text: str) -> str:
    """`text` without what looks like a credential."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1[redacted]", text)
    return text


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, at most `LINE_MAX` long apart from a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage())[:LINE_MAX],
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1]))
            line["traceback"] = redact(text)[-_TRACE_MAX:]
        return json.dumps(line, ensure_ascii=True, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: `--GpuDevWeb.log_format=text`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        extra = " ".join(f"{key}={value}" for key, value in fields.items())
        return redact(f"{super().format(record)} {extra}".rstrip())


def _interesting(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NOISE)


def set_up(form: str, level: str) -> None:
    """Sends every log of this process to standard error as `form`: "json" or "text"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(_interesting)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # httpx logs every call to the Hub with its address.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class FloodGuard:
    """Counts what an address is refused instead of writing a line for each.

    Args:
        time: seconds, monotonic.
        every: seconds between two lines about one address.
    """

    def __init__(
        self, time: Callable[[], float] = time.monotonic, every: float = 10.0, most: int = 1_000
    ) -> None:
        self._time, self._every, self._most = time, every, most
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str) -> int | None:
        """How many refusals to report now, or None to stay silent."""
        now = self._time()
        at, count = self._seen.pop(address, (None, 0))
        if at is not None and now - at < self._every:
            self._seen[address] = (at, count + 1)
            return None
        self._seen[address] = (now, 0)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return count + 1

    def __len__(self) -> int:
        return len(self._seen)


_flood = FloodGuard()
_TOO_MANY = 429


def log_request(handler: RequestHandler) -> None:
    """Tornado's `log_function`: one line for each request."""
    status = handler.get_status()
    fields: dict[str, Any] = {
        "request_id": getattr(handler, "request_id", ""),
        "method": handler.request.method[:10] if handler.request.method else "",
        "route": getattr(handler, "route_name", type(handler).__name__),
        "status": status,
        "ms": round(1000 * handler.request.request_time(), 1),
        "caller": str(getattr(handler, "caller_name", ""))[:100],
    }
    if status == _TOO_MANY:
        address = str(handler.request.remote_ip)[:64]
        refused = _flood.note(address)
        if refused is None:
            return
        fields |= {"address": address, "refused": refused}
    level = logging.WARNING if status >= 500 else logging.INFO  # noqa: PLR2004 - server errors
    access.log(level, "request", extra={"fields": fields})

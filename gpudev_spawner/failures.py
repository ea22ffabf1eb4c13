"""Why a server did not come up, in words for its owner.

What the server wrote is not in them: reasons are kept in histories that others may read.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .refusals import SpawnRefused


class ServerDied(Exception):  # noqa: N818 - what happened
    """A starting server ended; `status` is its exit code."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit code {status}")
        self.status = status


def reason(error: Exception, limit: float) -> str:
    """A sentence for `error`; `limit` is how many seconds the server had."""
    if isinstance(error, SpawnRefused):
        return error.message
    if isinstance(error, TimeoutError):
        return (
            f"JupyterLab did not answer within {limit:g} seconds. "
            "Try it once more, and tell an administrator if it happens again."
        )
    if isinstance(error, ServerDied):
        return (
            f"JupyterLab ended before it was ready (exit code {error.status}). "
            "An administrator finds the cause in the server's log."
        )
    return "JupyterLab could not be started. An administrator finds the cause in the Hub's log."


def api_url(where: Any, base_url: str) -> str:
    """Where a server answers first, from what a spawner's `start` returned: a URL, or address and
    port."""
    if isinstance(where, str):
        parts = urlsplit(where)
        return f"{parts.scheme}://{parts.netloc}{base_url}api"
    host, port = where
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}{base_url}api"

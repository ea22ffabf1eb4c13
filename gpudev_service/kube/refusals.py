"""What the API server may not do for us, and what its objects are here.

Apart from the connection, so that a service without Kubernetes needs none of its libraries.
"""

from __future__ import annotations

from typing import Any

#: An object of the Kubernetes API, as it is on the wire.
Object = dict[str, Any]


class KubeAway(Exception):  # noqa: N818 - a condition
    """The API server cannot be reached, or cannot answer now; later it may."""


class KubeRefused(Exception):  # noqa: N818 - an answer
    """The API server says no. `reason` is its own word for it (`NotFound`, `AlreadyExists`)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class NoCredentials(Exception):  # noqa: N818 - a mistake of the configuration
    """How to reach the API server is not written where it should be."""

"""Refusals: what an operation says no with, in words for a person.

Every refusal carries a stable code, an HTTP status that fits it, and where it helps the field and
what would be accepted. Anything else that is raised is a defect and reaches callers only as a
request id.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: Every code that an answer may carry, with its status. The OpenAPI document lists them.
CODES: Mapping[str, int] = MappingProxyType(
    {
        "bad_request": 400,
        "invalid_input": 422,
        "unknown_action": 405,
        "not_authenticated": 401,
        "not_allowed": 403,
        "not_found": 404,
        "too_large": 413,
        "too_many_requests": 429,
        "policy_limit": 409,
        "quota": 409,
        "maintenance": 409,
        "impossible": 409,
        "disk_in_use": 409,
        "disk_busy": 409,
        "disk_full": 507,
        "not_listed": 409,
        "name_taken": 409,
        "server_in_use": 409,
        "wrong_state": 409,
        "server_not_ready": 409,
        "planned_again": 409,
        "no_ssh_keys": 409,
        "no_ssh": 409,
        "extension_limited": 409,
        "idempotency_conflict": 409,
        "in_progress": 409,
        "gone": 410,
        "internal": 500,
        "unavailable": 503,
    }
)


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request that is refused for a reason that its author can act on.

    Args:
        code: one of `CODES`.
        message: one or two sentences for a person; no internals.
        field: the input that is at fault.
        accepted: what would be accepted: a list of choices, a number, a range.
    """

    def __init__(
        self, code: str, message: str, *, field: str | None = None, accepted: Any = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = CODES[code]
        self.message = message
        self.field = field
        self.accepted = accepted


def not_found(what: str) -> Refusal:
    """The same answer for what does not exist and for what the caller may not see."""
    return Refusal("not_found", f"There is no such {what}.")

"""Refusals."""

from __future__ import annotations

from typing import Any

from .base import Answer


class ErrorBody(Answer):
    """What went wrong, in words for a person.

    `code` is stable and for programs, `field` names the offending input, `accepted` tells what
    would be accepted in its place (a list of choices, a range, a number).
    """

    code: str
    message: str
    field: str | None = None
    accepted: Any = None


class ErrorAnswer(Answer):
    error: ErrorBody

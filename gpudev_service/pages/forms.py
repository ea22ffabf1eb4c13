"""What a person typed into a form, and what was wrong with it.

A form that is refused comes back with everything in it and the reason at its field, so nothing has
to be typed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpudev_service.errors import Refusal

#: Fields of every form that are not the person's.
OWN_FIELDS = frozenset({"_xsrf", "once"})


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a page; the empty one stands for "not sent yet".

    `name` tells the forms of a page apart, `key` the forms of a list (a node's, a disk's).
    """

    name: str = ""
    key: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    error: Refusal | None = None

    def value(self, name: str, default: object = "") -> str:
        """What was typed, or `default`."""
        return self.values.get(name, "" if default is None else str(default))

    def problem(self, name: str) -> str | None:
        """What is wrong with this field."""
        return self.error.message if self.error is not None and self.error.field == name else None

    def general(self, *fields: str) -> str | None:
        """What is wrong and belongs to none of the form's `fields`."""
        if self.error is None or self.error.field in fields:
            return None
        return self.error.message


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms of a page, of which at most one was sent."""

    sent: Form = Form()

    def get(self, name: str, key: str = "") -> Form:
        """The form of that name: as it was sent, or empty."""
        matches = (self.sent.name, self.sent.key) == (name, key)
        return self.sent if matches else Form(name, key)

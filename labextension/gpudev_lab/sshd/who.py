"""Who may be connected, by what the service says; pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gpudev_client.models import LabView


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may come in by SSH, with their keys by fingerprint."""

    user: str
    keys: tuple[str, ...]
    until: datetime | None = None

    @property
    def fingerprints(self) -> frozenset[str]:
        return frozenset(fingerprint(key) for key in self.keys)


def fingerprint(key: str) -> str:
    """What sshd calls a public key; empty for what is none."""
    parts = key.split()
    try:
        body = base64.b64decode(parts[1], validate=True)
    except (IndexError, binascii.Error, ValueError):
        return ""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode("ascii").rstrip("=")
    return f"SHA256:{digest}"


def people(view: LabView, now: datetime) -> dict[str, Person]:
    """Everybody who may come in, by Hub name."""
    return {
        one.user: Person(one.user, tuple(one.keys), one.until)
        for one in view.access
        if (one.owner or one.role == "use") and (one.until is None or one.until > now)
    }


def next_end(view: LabView, now: datetime) -> datetime | None:
    """When the next invitation ends."""
    ends = [one.until for one in view.access if one.until is not None and one.until > now]
    return min(ends, default=None)


def owner_of(key: str, known: Mapping[str, Person]) -> str | None:
    """Whose key this is, by its fingerprint."""
    return next((name for name, one in known.items() if key in one.fingerprints), None)


def disk(view: LabView) -> str:
    """What tells the disk of a lease from every other one. Without a disk the home directory is
    the reservation's own. A disk keeps the time it was made when it is renamed."""
    if view.disk is None:
        return f"reservation {view.reservation.id}"
    made = view.disk.created_at.isoformat()
    return f"disk of {view.disk.user} made {made}"

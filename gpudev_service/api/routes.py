"""THE route table: every address of the API, in the order of the OpenAPI document."""

from __future__ import annotations

from collections import Counter

from . import (
    capacity,
    cluster,
    disks,
    documents,
    events,
    health,
    lab,
    logins,
    me,
    reservations,
    sharing,
    use,
)
from .route import Route

#: Below the service's prefix.
BASE = "/api/v1"

ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    *documents.ROUTES,
    *me.ROUTES,
    *capacity.ROUTES,
    *reservations.ROUTES,
    *events.ROUTES,
    *sharing.ROUTES,
    *lab.ROUTES,
    *use.ROUTES,
    *disks.ROUTES,
    *cluster.ROUTES,
    *logins.ROUTES,
)


def of_this_replica(prefix: str) -> tuple[str, ...]:
    """The paths that are about the replica that is asked, and not about the service."""
    api = prefix.rstrip("/") + BASE
    return (*(api + route.path for route in health.ROUTES), f"{prefix}metrics")


for _what in (
    [route.name for route in ROUTES],
    [(route.method, route.path) for route in ROUTES],
):
    _twice = [str(key) for key, count in Counter(_what).items() if count > 1]
    if _twice:
        raise ValueError(f"in the route table twice: {', '.join(_twice)}")

"""Whether the service lives, and whether it can serve."""

from __future__ import annotations

from importlib.metadata import version

from gpudev_client.models import Health
from gpudev_service.errors import CODES
from gpudev_service.operations import status

from .answered import Answered
from .route import Access, Call, NoQuery, Route


async def ready(call: Call[NoQuery, None]) -> Answered:
    """200 while requests can be served, 503 while the database is away. A loop that fails makes
    the service `degraded` and not unready: people must still be able to see and cancel. A replica
    that stands by serves too, through the leader."""
    database = await status.database_answers(call.ctx)
    loops = call.service.loops()
    ok = database and all(loop.ok for loop in loops)
    health = Health(
        status="ok" if ok else "degraded",
        version=version("gpudev"),
        database=database,
        leader=call.service.leads(),
        loops=loops,
    )
    return Answered(200 if database else CODES["unavailable"], health)


async def live(call: Call[NoQuery, None]) -> Health:
    """The process answers; nothing else is looked at, so that a restart is not asked for where it
    would not help."""
    return Health(status="ok", version=version("gpudev"))


ROUTES = (
    Route(
        "health",
        "GET",
        "/health",
        Access.PUBLIC,
        ready,
        "Readiness of the replica that is asked: 503 while the database is away; loops that fail "
        "are named.",
        answer=Health,
        errors=("unavailable",),
    ),
    Route(
        "health_live",
        "GET",
        "/health/live",
        Access.PUBLIC,
        live,
        "Liveness: the process answers. Never refused, however often it is asked.",
        answer=Health,
        unlimited=True,
    ),
)

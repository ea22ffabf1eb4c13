"""Event streams: of one reservation, and of all that the caller may see."""

from __future__ import annotations

from dataclasses import dataclass

from gpudev_client.models import Event
from gpudev_client.states import FINAL
from gpudev_service.operations import reservations, status

from .route import Access, Call, NoQuery, Route


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What the handler is to stream: of which reservation (None: all visible), after which id."""

    reservation_id: str | None
    last_id: int | None


async def everything(call: Call[NoQuery, None]) -> StreamPlan:
    return StreamPlan(None, _last_id(call.last_event))


async def of_reservation(call: Call[NoQuery, None]) -> StreamPlan | None:
    """None (answered with 204, which tells browsers not to come back) when the reader has seen the
    end of a reservation that is over."""
    key, last = call.path["id"], _last_id(call.last_event)
    if last is not None and last >= await status.last_event(call.ctx, key):
        view = await reservations.get(call.ctx, key)
        if view.state in FINAL:
            return None
    return StreamPlan(key, last)


def _last_id(text: str | None) -> int | None:
    """A browser sends back what it was given; anything else begins the stream anew."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text[:20]), 2**63 - 1)


ROUTES = (
    Route(
        "events",
        "GET",
        "/events",
        Access.READ,
        everything,
        "Server-sent events of everything that the caller may see, beginning with the present "
        "state of each live reservation.",
        answer=Event,
        media="text/event-stream",
        stream=True,
    ),
    Route(
        "reservation_events",
        "GET",
        "/reservations/{id}/events",
        Access.RESERVATION_READ,
        of_reservation,
        "Server-sent events of one reservation, beginning with its present state, until it is "
        "over.",
        answer=Event,
        media="text/event-stream",
        stream=True,
    ),
)

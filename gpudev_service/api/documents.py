"""What the service says about itself: its OpenAPI document, and its metrics."""

from __future__ import annotations

from .metrics import CONTENT_TYPE
from .route import Access, Call, NoQuery, Route


async def openapi_document(call: Call[NoQuery, None]) -> bytes:
    return call.service.openapi


async def metrics(call: Call[NoQuery, None]) -> bytes:
    service = call.service
    return await service.metrics.render(call.ctx, service.loops(), leads=service.leads())


ROUTES = (
    Route(
        "openapi",
        "GET",
        "/openapi.json",
        Access.PUBLIC,
        openapi_document,
        "This API as an OpenAPI 3.1 document.",
    ),
)

#: Not part of the API: it stands at the service's root, where Prometheus looks for it.
METRICS = Route(
    "metrics",
    "GET",
    "/metrics",
    Access.METRICS,
    metrics,
    "Metrics for Prometheus: for admins, and for tokens with the Hub's own scope read:metrics.",
    media=CONTENT_TYPE,
)

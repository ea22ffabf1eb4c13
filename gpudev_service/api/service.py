"""What the handlers of the API share beside the operations' context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gpudev_client.models import LoopHealth
from gpudev_service.context import Context

from .auth import Authenticator
from .idempotency import Idempotency
from .metrics import Metrics
from .people import People
from .ratelimit import RateLimit


@dataclass(slots=True)
class Service:
    """Built once by `web.build`; closed with the application."""

    ctx: Context
    prefix: str
    auth: Authenticator
    people: People
    limit: RateLimit
    idempotency: Idempotency
    openapi: bytes
    loops: Callable[[], list[LoopHealth]]
    metrics: Metrics = field(default_factory=Metrics)
    #: Seconds after which a stream asks again whether its caller may still listen.
    recheck: float = 4.0
    keepalive: float = 15.0
    metrics_public: bool = False

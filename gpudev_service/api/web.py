"""The web application: the API, the metrics, the pages where they are there, and the login."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyterhub.services.auth import HubOAuth
from tornado.web import Application

from gpudev_client.models import LoopHealth
from gpudev_service.context import Context

from . import logs, openapi
from .auth import Authenticator
from .documents import METRICS
from .handler import ApiHandler
from .idempotency import Idempotency
from .logins import Logins
from .people import People
from .ratelimit import RateLimit
from .route import Route
from .routes import BASE, ROUTES
from .service import Service

#: Requests per second, and at once, of an address that shows no valid token.
ANONYMOUS_RATE, ANONYMOUS_BURST = 10.0, 60.0


def service(
    ctx: Context,
    hub_auth: HubOAuth,
    *,
    prefix: str,
    loops: Callable[[], list[LoopHealth]],
    routes: Sequence[Route] = ROUTES,
    anonymous: tuple[float, float] = (ANONYMOUS_RATE, ANONYMOUS_BURST),
    metrics_public: bool = False,
    login_days: float = 30.0,
    leads: Callable[[], bool] = lambda: True,
) -> Service:
    """What the handlers share. `prefix` is where the Hub's proxy has the service, with slashes."""
    # Apart from each other: whoever floods without a token must not lock out those behind the same
    # address who come with one that has not been seen yet.
    limit, guesses = (RateLimit(*anonymous, time=time.monotonic) for _ in range(2))
    return Service(
        ctx=ctx,
        prefix=prefix,
        auth=Authenticator(hub_auth, guesses, patience=ctx.settings.times.hub_patience),
        people=People(ctx.hub),
        limit=limit,
        idempotency=Idempotency(ctx),
        logins=Logins(ctx.hub, login_days, prefix.rstrip("/").rpartition("/")[2]),
        loops=loops,
        openapi=openapi.render(routes, prefix.rstrip("/") + BASE),
        metrics_public=metrics_public,
        leads=leads,
    )


def application(
    shared: Service,
    *,
    cookie_secret: bytes,
    routes: Sequence[Route] = ROUTES,
    pages: Sequence[Any] = (),
    **settings: Any,
) -> Application:
    """The tornado application. `pages` are handler tuples with full paths."""
    prefix = shared.prefix
    api = prefix.rstrip("/") + BASE
    mine = {"service": shared, "routes": tuple(routes)}
    root = {"service": shared, "routes": (METRICS,)}
    handlers = [
        (re.escape(api) + "(?:/.*)?", ApiHandler, mine),
        (re.escape(f"{prefix}metrics"), ApiHandler, root),
        *pages,
        (".*", ApiHandler, {"service": shared, "routes": ()}),
    ]
    return Application(
        handlers,
        cookie_secret=cookie_secret,
        xsrf_cookies=True,
        log_function=logs.log_request,
        api_base=api,
        prefix=prefix,
        **settings,
    )


def cookie_secret(data_dir: Path) -> bytes:
    """The secret that signs login cookies, made once; browsers stay logged in over a restart."""
    path = data_dir / "cookie_secret"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(32))
    return path.read_bytes()

"""The caller as the service sees them."""

from __future__ import annotations

from gpudev_client.models import Me

from .route import Access, Call, NoQuery, Route


async def me(call: Call[NoQuery, None]) -> Me:
    caller = call.caller
    return Me(
        name=caller.name,
        kind=caller.kind,
        admin=caller.admin,
        groups=list(caller.groups),
        scopes=caller.gpudev_scopes,
        policy=call.ctx.settings.policy.of(caller.groups),
    )


ROUTES = (
    Route(
        "me",
        "GET",
        "/me",
        Access.READ,
        me,
        "Who the caller is, what they may do, and their limits.",
        answer=Me,
    ),
)

"""GPU types, their maintenance, and what is free when."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import Field

from gpudev_client import limits
from gpudev_client.models import Availability, GpuType, MaintenanceRequest, Page
from gpudev_service.operations import capacity, cursors

from . import access
from .route import Access, Call, NoQuery, PageQuery, Route

T = TypeVar("T")


class TypesQuery(PageQuery):
    user: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="With the limits of this user, for whom the caller may reserve; default: own.",
    )


class AvailabilityQuery(TypesQuery):
    hours: float = Field(
        default=1.0,
        gt=0,
        le=limits.HOURS_MAX,
        allow_inf_nan=False,
        description="The length for which the earliest starts are computed.",
    )
    gpu_type: str | None = Field(default=None, max_length=63, description="Only this type.")


Q = TypeVar("Q", bound=TypesQuery)


async def _for_whom(call: Call[Q, None]) -> tuple[str | None, tuple[str, ...]]:
    """Whose limits hold for the answer, and their groups; nobody's where a service asks."""
    own = call.caller.name if call.caller.kind == "user" else None
    user = call.query.user
    if user is None or user == own:
        return own, call.caller.groups
    people = call.service.people
    await access.person(people, Access.CREATE, call.caller, user)
    return user, await people.groups_of_existing(user)


async def gpu_types(call: Call[TypesQuery, None]) -> Page[GpuType]:
    _, groups = await _for_whom(call)
    return page_of(await capacity.gpu_types(call.ctx, groups), call.query)


async def availability(call: Call[AvailabilityQuery, None]) -> Page[Availability]:
    query = call.query
    user, groups = await _for_whom(call)
    found = await capacity.availability(call.ctx, query.hours, groups, query.gpu_type, user)
    return page_of(found, query)


async def set_maintenance(call: Call[NoQuery, MaintenanceRequest]) -> GpuType:
    return await capacity.set_maintenance(
        call.ctx, call.path["name"], call.body.message, call.actor, call.caller.groups
    )


async def end_maintenance(call: Call[NoQuery, None]) -> GpuType:
    return await capacity.end_maintenance(
        call.ctx, call.path["name"], call.actor, call.caller.groups
    )


def page_of(items: list[T], query: PageQuery) -> Page[Any]:
    """One page of a list that is short and complete in memory."""
    start = cursors.number(query.cursor) if query.cursor else 0
    end = start + query.limit
    following = cursors.of_number(end) if end < len(items) else None
    return Page(items=items[start:end], next_cursor=following)


ROUTES = (
    Route(
        "list_gpu_types",
        "GET",
        "/gpu-types",
        Access.READ,
        gpu_types,
        "GPU types with the counts and hours that the caller can ask for.",
        query=TypesQuery,
        answer=Page[GpuType],
    ),
    Route(
        "availability",
        "GET",
        "/availability",
        Access.READ,
        availability,
        "Per GPU type what is there, what is free, who waits, and the earliest starts.",
        query=AvailabilityQuery,
        answer=Page[Availability],
        errors=("not_found",),
    ),
    Route(
        "set_maintenance",
        "PUT",
        "/gpu-types/{name}/maintenance",
        Access.ADMIN,
        set_maintenance,
        "Take no new reservations of a type, and say why.",
        body=MaintenanceRequest,
        answer=GpuType,
    ),
    Route(
        "end_maintenance",
        "DELETE",
        "/gpu-types/{name}/maintenance",
        Access.ADMIN,
        end_maintenance,
        "Take reservations of a type again.",
        answer=GpuType,
    ),
)

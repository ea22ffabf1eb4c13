"""What one route of the API is. The table of them all stands in `routes`.

A route says everything about itself: who may call it, what it takes, what it answers, how it can
refuse. Dispatch, authorisation, the OpenAPI document and the authorisation test are made from it,
so nothing about a route is written twice. A route without an access cannot be constructed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, Field

from gpudev_client import limits
from gpudev_client.models import Request
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.errors import CODES
from gpudev_service.events import Owner

if TYPE_CHECKING:
    from .auth import Caller
    from .service import Service

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MUTATING = frozenset(METHODS) - {"GET"}


class Access(StrEnum):
    """Who may call a route, decided before anything about its object is revealed."""

    PUBLIC = "public"  # anybody, without a token
    READ = "read"  # anybody whom the Hub knows and who holds any scope of gpudev
    RESERVATION_READ = "reservation_read"  # who may see the reservation {id}
    RESERVATION_WRITE = "reservation_write"  # who may change the reservation {id}
    DISK_READ = "disk_read"  # who may see the disks of ?user (default: the caller)
    DISK_WRITE = "disk_write"  # who may change them
    CREATE = "create"  # who may reserve for the body's `user` (default: the caller)
    ADMIN = "admin"  # admins of the whole fleet
    LEAVE = "leave"  # who may change the reservation {id}, and the collaborator {user}
    CONNECT = "connect"  # who may open the server of the reservation {id}
    LAB = "lab"  # the server of the reservation {id}
    PERSON_READ = "person_read"  # the user {user}, and admins
    PERSON_WRITE = "person_write"
    SPAWNER = "spawner"  # the Hub's spawner, on the reservation {id}
    METRICS = "metrics"  # who may read metrics


#: What each path parameter must look like; anything else is not there.
PARAMETERS: Mapping[str, str] = {
    "id": limits.RESERVATION_ID,
    "name": rf"{limits.DISK_NAME}|{limits.TYPE_NAME}",
    "node": limits.NODE_NAME,
    "user": limits.USER_NAME,
}


#: Accesses that are decided by the reservation {id}, and by the user {user}.
BY_ID = frozenset(
    {
        Access.RESERVATION_READ,
        Access.RESERVATION_WRITE,
        Access.LEAVE,
        Access.CONNECT,
        Access.LAB,
        Access.SPAWNER,
    }
)
BY_USER = frozenset({Access.LEAVE, Access.PERSON_READ, Access.PERSON_WRITE})


class NoQuery(Request):
    """No query parameters."""


class PageQuery(Request):
    """Which part of a list."""

    limit: int = Field(
        default=limits.PAGE_DEFAULT, ge=1, le=limits.PAGE_MAX, description="Most items on the page."
    )
    cursor: str | None = Field(
        default=None, max_length=512, description="`next_cursor` of the page before."
    )


class UserQuery(Request):
    """Whose; the caller's own by default."""

    user: str | None = Field(
        default=None, min_length=1, max_length=255, description="A Hub user; default: the caller."
    )


class UserPageQuery(PageQuery, UserQuery):
    """Whose, and which part of the list."""


QueryT = TypeVar("QueryT", bound=BaseModel)
BodyT = TypeVar("BodyT")


@dataclass(slots=True)
class Call(Generic[QueryT, BodyT]):
    """One authorised and validated request. `owner` is whose things it is about, where it has one:
    of the reservation, of the disks, or whom a new reservation will belong to."""

    ctx: Context
    service: Service
    caller: Caller
    path: Mapping[str, str]
    query: QueryT
    body: BodyT
    owner: Owner | None = None
    request_id: str = ""
    #: Scheme and host by which the caller has reached the service.
    origin: str = ""
    #: The header `Last-Event-ID` of a reader who comes back to a stream.
    last_event: str | None = None

    @property
    def actor(self) -> Actor:
        """Who acts, for histories. The spawner is a person's hand: what it does for a user, that
        user did."""
        if self.caller.acts_for_others and self.owner is not None:
            return Actor(self.owner.user, self.owner.groups)
        return self.caller.actor


Operation = Callable[[Call[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        name: unique; metrics, logs and the OpenAPI document's operationId.
        path: below the API's base; parameters in braces, each one of `PARAMETERS`.
        access: who may call it.
        operation: what is done, once the caller may do it and the request is valid.
        answer: model of the answer, or None where `media` is not JSON.
        errors: codes of refusals beyond those that access and validation bring.
        secret: the answer contains a credential: it is never stored for a retry.
        unlimited: strangers are not counted: for probers, and only where an answer costs nothing.
        recall: finds the answer again after a crash between effect and answer; takes the call and
            the ids of the rows that the effect had made. None: the operation can be repeated.
    """

    name: str
    method: str
    path: str
    access: Access
    operation: Operation
    summary: str
    answer: Any = None
    status: int = 200
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    errors: tuple[str, ...] = ()
    media: str = "application/json"
    stream: bool = False
    secret: bool = False
    unlimited: bool = False
    recall: Callable[[Call[Any, Any], Mapping[str, list[str]]], Awaitable[Any]] | None = None
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.access, Access):
            raise TypeError(f"route {self.name}: no access given")
        if self.method not in METHODS:
            raise ValueError(f"route {self.name}: unknown method {self.method}")
        unknown = set(self.parameters) - set(PARAMETERS) | (set(self.errors) - set(CODES))
        if unknown:
            raise ValueError(f"route {self.name}: unknown {sorted(unknown)}")
        if self.unlimited and (self.access is not Access.PUBLIC or self.method != "GET"):
            raise ValueError(f"route {self.name}: only a public GET can be unlimited")
        if self.access in BY_ID and "id" not in self.parameters:
            raise ValueError(f"route {self.name}: {self.access} needs a reservation in the path")
        if self.access in BY_USER and "user" not in self.parameters:
            raise ValueError(f"route {self.name}: {self.access} needs a user in the path")
        parts = [
            "([^/]+)" if part.startswith("{") else re.escape(part) for part in self.path.split("/")
        ]
        object.__setattr__(self, "pattern", re.compile("/".join(parts)))

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    @property
    def mutating(self) -> bool:
        return self.method in MUTATING

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code that a refusal of this route can carry."""
        codes = {"bad_request", "invalid_input", "internal", *self.errors}
        if not self.unlimited:
            codes.add("too_many_requests")
        if self.access is not Access.PUBLIC:
            codes |= {"not_authenticated", "not_allowed", "unavailable"}
        if self.parameters:
            codes.add("not_found")
        if self.mutating:
            codes |= {"too_large", "idempotency_conflict", "in_progress"}
        return tuple(code for code in CODES if code in codes)

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters, decoded; None where the path is not this route's."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        values = [unquote(value, errors="replace") for value in found.groups()]
        return dict(zip(self.parameters, values, strict=True))


def well_formed(parameters: Mapping[str, str]) -> bool:
    """Whether every path parameter can name something at all."""
    return all(re.fullmatch(PARAMETERS[name], value) for name, value in parameters.items())

"""The panel's endpoints. Each wants a person who may use this server; what only the owner may do is
decided by the service, which is asked with that person's own token and not with the server's."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from pydantic import BaseModel, ValidationError
from tornado import web

from gpudev_client import AsyncClient, errors
from gpudev_client.models import (
    CollaboratorRequest,
    ErrorAnswer,
    ErrorBody,
    ExtensionRequest,
    SnapshotRequest,
)

from . import panel
from .closing import Saved
from .state import LabState

M = TypeVar("M", bound=BaseModel)

#: Longest body that is read.
_BODY_MAX = 64 * 1024


class LabHandler(APIHandler):
    """Base of all: who calls, and errors as sentences."""

    auth_resource = "gpudev"

    def initialize(self, state: LabState) -> None:
        self.state = state

    # --- who ----------------------------------------------------------------------------------

    def visitor(self) -> panel.Visitor:
        name = self.current_user.username
        return panel.Visitor(name=name, owner=name == self.state.owner)

    def as_visitor(self) -> AsyncClient:
        """The service, asked with the token of whoever opened this page."""
        hub_auth = getattr(self.identity_provider, "hub_auth", None)
        token = hub_auth.get_token(self) if hub_auth is not None else None
        if not token:
            raise errors.refusal(403, "not_allowed", "Open this server through the Hub for that.")
        return self.state.client_for(token)

    @property
    def reservation_id(self) -> str:
        if self.state.link is None:
            raise errors.refusal(409, "wrong_state", "This server stands on no reservation.")
        return self.state.link.reservation_id

    # --- in and out ---------------------------------------------------------------------------

    def read(self, kind: type[M]) -> M:
        if len(self.request.body) > _BODY_MAX:
            raise errors.refusal(413, "too_long", "The request is too long.")
        try:
            return kind.model_validate_json(self.request.body or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or None
            raise errors.refusal(
                422, "invalid_input", f"{field or 'input'}: {first['msg']}.", field
            ) from None

    def answer(self, value: BaseModel) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(value.model_dump_json())

    async def changed(self) -> None:
        """After a change: the caller sees it at once, every other page soon."""
        if self.state.link is not None:
            try:
                await self.state.link.renew()
            except errors.GpuDevError as error:
                self.log.debug("the view after a change: %s", error)
        self.answer(self.state.lease(self.visitor()))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors of the service as they are, everything else as a sentence without details."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        status, told = _told(status_code, error)
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(ErrorAnswer(error=told).model_dump()))

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        if not isinstance(value, errors.GpuDevError):
            super().log_exception(kind, value, trace)


def _told(status: int, error: BaseException | None) -> tuple[int, ErrorBody]:
    if isinstance(error, errors.RefusalError):
        body = ErrorBody(
            code=error.code, message=error.message, field=error.field, accepted=error.accepted
        )
        # 401 would make JupyterLab log out; it is this server's page that is fine.
        return (403 if error.status == HTTPStatus.UNAUTHORIZED else error.status), body
    if isinstance(error, errors.GpuDevError):
        words = "The reservation service does not answer at the moment. Try again in a minute."
        return HTTPStatus.SERVICE_UNAVAILABLE, ErrorBody(code="unreachable", message=words)
    if isinstance(error, web.HTTPError) and status == HTTPStatus.FORBIDDEN:
        words = "You may not use this server, or your session has ended. Reload the page."
        return status, ErrorBody(code="not_allowed", message=words)
    words = "That did not work; the server's log says why."
    return status, ErrorBody(code="failed", message=words)


class LeaseHandler(LabHandler):
    @web.authenticated
    @authorized
    async def get(self) -> None:
        """The lease as this server knows it; asks the service only where that is old."""
        await self.state.freshen()
        self.answer(self.state.lease(self.visitor()))


class ExtensionHandler(LabHandler):
    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Extends the lease by some hours."""
        wanted = self.read(ExtensionRequest)
        await self.as_visitor().extend(self.reservation_id, wanted.hours)
        await self.changed()


class CollaboratorHandler(LabHandler):
    @web.authenticated
    @authorized
    async def put(self, user: str) -> None:
        """Invites somebody, or changes an invitation."""
        wanted = self.read(CollaboratorRequest)
        await self.as_visitor().invite(self.reservation_id, user, wanted.role, wanted.until)
        await self.changed()

    @web.authenticated
    @authorized
    async def delete(self, user: str) -> None:
        """Takes an invitation back."""
        await self.as_visitor().uninvite(self.reservation_id, user)
        await self.changed()


class SnapshotHandler(LabHandler):
    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Begins a snapshot of the disk."""
        wanted = self.read(SnapshotRequest)
        await self.as_visitor().snapshot_lease(self.reservation_id, wanted.note)
        self.state.watch_snapshot()
        await self.changed()


class ReleaseHandler(LabHandler):
    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Gives the GPUs back: the lease ends now."""
        await self.as_visitor().cancel(self.reservation_id, "Given back from JupyterLab.")
        await self.changed()


class KeepHandler(LabHandler):
    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Keeps a lease that looks idle."""
        await self.as_visitor().keep(self.reservation_id)
        await self.changed()


class SavedHandler(LabHandler):
    @web.authenticated
    @authorized
    async def post(self) -> None:
        """A page has saved what was open in it."""
        self.state.saved(self.read(Saved))
        self.set_status(HTTPStatus.NO_CONTENT)
        self.finish()


def handlers(state: LabState) -> list[tuple[str, type[LabHandler], dict[str, Any]]]:
    """All endpoints, below the server's base URL."""
    found: list[tuple[str, type[LabHandler]]] = [
        (r"gpudev/lease", LeaseHandler),
        (r"gpudev/extension", ExtensionHandler),
        (r"gpudev/collaborators/([^/]+)", CollaboratorHandler),
        (r"gpudev/snapshot", SnapshotHandler),
        (r"gpudev/release", ReleaseHandler),
        (r"gpudev/keep", KeepHandler),
        (r"gpudev/saved", SavedHandler),
    ]
    return [(path, kind, {"state": state}) for path, kind in found]

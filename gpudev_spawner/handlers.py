"""What gpudev adds to the Hub's own addresses, below `/hub/gpudev/`.

A page of the Hub cannot call the service with the visitor's login (another cookie, another path),
so these few handlers ask it for them: the visitor is who the Hub says, and needs the Hub's right to
the servers of whoever they ask for.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.user import User
from jupyterhub.utils import url_path_join
from tornado.web import HTTPError, StaticFileHandler, authenticated

from gpudev_client import errors, ids, limits
from gpudev_client.hub_api import ROWS

from . import STATIC, options, rows, stash
from .form import PRESETS, start_view
from .mixin import GpuDevMixin
from .refusals import refused

#: Seconds that a start may take to end after it was cancelled.
_CANCEL_PATIENCE = 10.0


class GpuDevHandler(BaseHandler):
    """Finds the person whose servers are meant and checks the visitor's right to them."""

    def owner(self, name: str) -> User:
        """The user of that name (the visitor for an empty one); 404 hides those of others."""
        visitor: User = self.current_user
        if not name or name == visitor.name:
            return visitor
        user: User | None = self.find_user(name)
        if user is None or not self.has_scope(f"servers!user={name}"):
            raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such user.")
        return user

    def spawner(self, user: User, server_name: str) -> GpuDevMixin:
        """A spawner of that user; 404 where there is no such server."""
        if server_name and server_name not in user.orm_spawners:
            raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such server.")
        spawner = user.spawners[server_name]
        if not isinstance(spawner, GpuDevMixin):
            raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such server.")
        return spawner


class PlanHandler(GpuDevHandler):
    """GET: when the request in the query would start, as JSON for the form's script."""

    @authenticated
    async def get(self) -> None:
        user = self.owner(self.get_query_argument("user", ""))
        spawner = self.spawner(user, "")
        values = options.form_values(
            {key: self.get_query_arguments(key) for key in self.request.query_arguments}
        )
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(await _plan(spawner, values, user.name))


async def _plan(spawner: GpuDevMixin, values: options.FormValues, user: str) -> dict[str, Any]:
    try:
        request = options.request_from_form(values).model_copy(update={"user": user})
        plan = await spawner.connection.client.plan(request)
    except options.InvalidOptions as error:
        return {"message": error.message, "field": error.field, "faults": error.faults}
    except errors.GpuDevError as error:
        refusal = refused(error)
        faults = {refusal.field: refusal.message} if refusal.field else {}
        return {"message": refusal.message, "field": refusal.field, "faults": faults}
    return start_view(plan)


class NewHandler(GpuDevHandler):
    """GET: a fresh random server name and the form for it; what the query says is filled in."""

    @authenticated
    async def get(self) -> None:
        user = self.owner(self.get_query_argument("user", ""))
        if not self.allow_named_servers:
            self.redirect(url_path_join(self.hub.base_url, "spawn", user.escaped_name))
            return
        # The shape of a reservation's id, by which the name is known as ours.
        server_name = ids.new_id()
        query = {key: self.get_query_arguments(key) for key in self.request.query_arguments}
        query.pop("user", None)
        if query:
            values = options.prefill(query, PRESETS)
            stash.keep(user, stash.Stash(server_name, values))
        self.redirect(url_path_join(self.hub.base_url, "spawn", user.escaped_name, server_name))


class LeaveHandler(GpuDevHandler):
    """POST: leaves the queue and ends the start that waits; needs the Hub's XSRF token."""

    @authenticated
    async def post(self) -> None:
        user = self.owner(self.get_body_argument("user", ""))
        server_name = self.get_body_argument("server_name", "")
        spawner = self.spawner(user, server_name)
        await spawner.leave(self.current_user.name)
        await _end_start(self, spawner, user, server_name)
        if limits.is_reservation_id(server_name):  # nobody will ask for this name again
            spawner.connection.later(rows.forget(spawner))
        self.redirect(url_path_join(self.hub.base_url, "home"))


async def _end_start(
    handler: BaseHandler, spawner: GpuDevMixin, user: User, server_name: str
) -> None:
    """What the Hub does for a stop of a pending server, without its fixed pause."""
    future = cast("asyncio.Task[Any] | None", spawner._spawn_future)
    if spawner.pending != "spawn" or future is None:
        return
    future.cancel()
    await asyncio.wait([future], timeout=_CANCEL_PATIENCE)
    if not spawner.pending:
        await handler.stop_single_user(user, server_name)


class RowHandler(APIHandler):
    """DELETE: the row of a server at rest, for the service; one that runs or starts stays."""

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def delete(self, user_name: str, server_name: str) -> None:
        user: User | None = self.find_user(user_name)
        known = user is not None and server_name in user.orm_spawners
        if user is None or not known or not isinstance(user.spawners[server_name], GpuDevMixin):
            raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such server.")
        if not await rows.remove_at_rest(user, server_name):
            raise HTTPError(
                HTTPStatus.CONFLICT, "The server runs, starts or is just being changed."
            )
        self.set_status(HTTPStatus.NO_CONTENT)


#: For `JupyterHub.extra_handlers`; the Hub puts its own prefix before each path.
HANDLERS: list[tuple[Any, ...]] = [
    (r"/gpudev/plan", PlanHandler),
    (r"/gpudev/new", NewHandler),
    (r"/gpudev/leave", LeaveHandler),
    (rf"/api/{ROWS}/(?P<user_name>[^/]+)/(?P<server_name>[^/]+)", RowHandler),
    (r"/gpudev/static/(.*)", StaticFileHandler, {"path": str(STATIC)}),
]

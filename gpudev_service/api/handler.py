"""The one handler of the API: what happens to every request, in this order.

known path and method → rate limit of the unknown → who calls → may they → is it valid → was it done
before → do it → answer. A request that fails early learns nothing that a later step would tell.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from jupyterhub.services.auth import HubOAuthenticated
from pydantic import BaseModel, TypeAdapter
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from gpudev_client.models import ErrorAnswer, ErrorBody
from gpudev_service.disks.base import DiskError
from gpudev_service.errors import CODES, Refusal, not_found
from gpudev_service.store.errors import OutcomeUnknown, StoreBroken, StoreUnavailable

from . import access, streams, validation
from .answered import Answered
from .auth import Caller, too_many
from .bodies import BodyHandler
from .idempotency import Claim, Stored, hash_of
from .permissions import Right
from .route import BY_ID, BY_USER, Access, Call, Route, well_formed
from .service import Service
from .storage import refusal_of

log = logging.getLogger(__name__)

_BROKEN = "The database cannot be used until an administrator has put it right."
_UNKNOWN = (
    "The database went away while this was being stored, and it may have been done. "
    "Try again with the same Idempotency-Key, or look first whether it was."
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

#: What path parameters name, for "there is no such ...".
_NOUNS = {"node": "node", "id": "reservation", "user": "user"}


class ApiHandler(HubOAuthenticated, BodyHandler):
    """Dispatches by the route table. The body is taken in only once the caller may send one."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

    def initialize(self, service: Service, routes: tuple[Route, ...]) -> None:
        self.service, self.routes = service, routes
        self.hub_auth = service.auth.hub_auth
        # JupyterHub's XSRF check looks at `current_user`, which would ask the Hub while everybody
        # else waits.
        self._hub_auth_user_cache = None
        self.route: Route | None = None
        self.route_name = "unknown"
        self.parameters: dict[str, str] = {}
        self.caller: Caller | None = None
        self.caller_name = ""
        self.call_owner: Any = None
        self._counted = False

    def set_default_headers(self) -> None:
        # Called again when an error clears the headers: the id must stay the one that was logged.
        self.request_id = getattr(self, "request_id", None) or secrets.token_hex(8)
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.set_header("X-Request-Id", self.request_id)
        self.clear_header("Server")

    def check_xsrf_cookie(self) -> None:
        """Not here: the authenticator checks it for callers with a cookie, before their cookie is
        believed; tornado would check it for callers with tokens too."""

    # --- before the body ----------------------------------------------------------------------

    async def prepare(self) -> None:
        self.begin_body()
        self.service.begun()
        self._counted = True
        try:
            await self._admit()
        except Refusal as refusal:
            await self.refuse_body(refusal)
        except StoreUnavailable as error:  # whose a reservation is, is asked there
            await self.refuse_body(self._of_store(error))

    async def _admit(self) -> None:
        auth, limit = self.service.auth, self.service.limit
        found = self._find()
        counted = isinstance(found, Refusal) or not found.unlimited
        public = isinstance(found, Refusal) or found.access is Access.PUBLIC
        if (
            counted
            and (public or not auth.has_credentials(self))
            and not limit.take(str(self.request.remote_ip))
        ):
            raise too_many()
        if isinstance(found, Refusal):
            raise found
        self.route, self.route_name = found, found.name
        open_metrics = found.access is Access.METRICS and self.service.metrics_public
        if found.access is not Access.PUBLIC and not open_metrics:
            if self.get_query_arguments("token"):
                raise Refusal(
                    "not_authenticated",
                    "A token in the address ends up in logs and is not accepted. Send it in the "
                    "Authorization header.",
                )
            self.caller = await auth.caller(self)
            self.caller_name = self.caller.key
            access.check_caller(found.access, self.caller)
        if found.access in BY_ID:
            await self._own_reservation(found)
        elif found.access in BY_USER and self.caller is not None:
            self.call_owner = access.same_person(found.access, self.caller, self.parameters["user"])
        if not well_formed(self.parameters):
            raise not_found(_noun(found))
        if self.announced > self.body_max:
            raise self.too_large()

    def _find(self) -> Route | Refusal:
        """The route, or why there is none."""
        path = self.request.path or ""
        for base in ("api_base", "prefix"):
            path = path.removeprefix(self.application.settings[base].rstrip("/"))
        methods = []
        for route in self.routes:
            parameters = route.match(path)
            if parameters is None:
                continue
            if route.method == self.request.method or (
                self.request.method == "HEAD" and route.method == "GET" and not route.stream
            ):
                self.parameters = parameters
                return route
            methods.append(route.method)
        if not methods:
            return Refusal(
                "not_found", "There is nothing at this address; openapi.json lists what there is."
            )
        self.set_header("Allow", ", ".join(methods))
        return Refusal(
            "unknown_action",
            f"{self.request.method} cannot be done here. Possible: {', '.join(methods)}.",
            accepted=methods,
        )

    async def _own_reservation(self, route: Route) -> None:
        assert self.caller is not None  # noqa: S101 - only public routes have no caller
        if not well_formed({"id": self.parameters["id"]}):
            raise not_found("reservation")
        if route.access is Access.SPAWNER and self.caller.grants.everywhere(Right.LAUNCH):
            return  # whoever may start everybody's servers is told by the call what is not there
        self.call_owner = await access.reservation_owner(
            self.service.ctx,
            route.access,
            self.caller,
            self.parameters["id"],
            self.parameters.get("user"),
        )

    # --- with the body ------------------------------------------------------------------------

    async def _answer(self) -> None:
        try:
            raw = self.end_body()
            if raw is not None:
                await self._dispatch(raw)
        except Refusal as refusal:
            self.refuse(refusal)
        except StoreUnavailable as error:
            self.refuse(self._of_store(error))
        except DiskError as error:
            log.warning("request %s: %s: %s", self.request_id, type(error).__name__, error)
            self.refuse(refusal_of(error))

    get = head = post = put = patch = delete = options = _answer

    def _of_store(self, error: StoreUnavailable) -> Refusal:
        """What callers are told of a database that cannot be used; the log says more."""
        match error:
            case StoreBroken():
                told, said = str(error), _BROKEN
            case OutcomeUnknown():
                told, said = "the database went away during a commit", _UNKNOWN
            case _:
                told, said = "the database is away", "The database is away for a moment. Try again."
        log.warning("request %s: %s", self.request_id, told)
        return Refusal("unavailable", said)

    async def _dispatch(self, raw: bytes) -> None:
        route = cast("Route", self.route)
        call = await self._call(route, raw)
        if route.stream:
            await self._stream(call)
            return
        key = self.request.headers.get("Idempotency-Key")
        if not route.mutating or key is None or route.secret:
            status, answer = await self._perform(route, call)
            self._send(status, answer, route.media)
            return
        await self._once(route, call, key, raw)

    async def _call(self, route: Route, raw: bytes) -> Call[Any, Any]:
        """The validated request. Whom a new reservation or a disk belongs to is looked at as soon
        as it can be read, before the rest is judged."""
        caller = cast("Caller", self.caller)
        owner = self.call_owner
        people = self.service.people
        query = validation.read_query(self.request.query_arguments, route.query)
        if route.access in {Access.DISK_READ, Access.DISK_WRITE}:
            owner = await access.person(
                people,
                route.access,
                caller,
                getattr(query, "user", None),
                named=self.parameters.get("name"),
            )
        self._check_content_type(raw)
        body = validation.read_body(raw, route.body) if route.body is not None else None
        if route.body is None and raw.strip():
            raise Refusal("bad_request", "This call takes no body.")
        if route.access is Access.CREATE:
            owner = await access.person(people, route.access, caller, getattr(body, "user", None))
        return Call(
            ctx=self.service.ctx,
            service=self.service,
            caller=caller,
            path=self.parameters,
            query=query,
            body=body,
            owner=owner,
            request_id=self.request_id,
            origin=f"{self.request.protocol}://{self.request.host}",
            last_event=self.request.headers.get("Last-Event-ID"),
        )

    def _check_content_type(self, raw: bytes) -> None:
        kind = self.request.headers.get("Content-Type", "application/json").split(";")[0].strip()
        if raw and kind.lower() != "application/json":
            raise Refusal("bad_request", "Send the body as application/json.")

    async def _perform(self, route: Route, call: Call[Any, Any]) -> tuple[int, Any]:
        answer = await route.operation(call)
        if isinstance(answer, Answered):
            return answer.status, answer.body
        return route.status, answer

    async def _once(self, route: Route, call: Call[Any, Any], key: str, raw: bytes) -> None:
        """The same under an Idempotency-Key."""
        key_field = validation.idempotency_key(key)
        store = self.service.idempotency
        request = self.request
        summary = hash_of(str(request.method), str(request.path), request.query, raw)
        async with store.claim(call.caller.key, key_field, summary) as claim:
            if isinstance(claim, Stored):
                self.set_header("Idempotent-Replay", "true")
                self._send_text(claim.status, claim.body, route.media)
                return
            status, text = await self._do_claimed(route, call, claim)
            await store.keep(claim, status, text)
            self._send_text(status, text, route.media)

    async def _do_claimed(
        self, route: Route, call: Call[Any, Any], claim: Claim
    ) -> tuple[int, str]:
        """Carries a claimed request out, or finds what an interrupted one has already done."""
        try:
            if claim.marked and route.recall is not None:
                try:
                    return route.status, _json(await route.recall(call, claim.made))
                except Refusal as refusal:
                    # What was made is gone again: then it is to be made.
                    if refusal.code != "not_found":
                        raise
                    claim.undone()
            status, answer = await self._perform(route, call)
            return status, _json(answer)
        except Refusal as refusal:
            if refusal.status >= CODES["internal"] or refusal.code == "too_many_requests":
                await self.service.idempotency.release(claim)
                raise
            return refusal.status, _json(error_answer(refusal))
        except Exception:
            await self.service.idempotency.release(claim)
            raise

    async def _stream(self, call: Call[Any, Any]) -> None:
        """Answers with server-sent events until the reader or the permission is gone."""
        plan = await cast("Route", self.route).operation(call)
        if plan is None:
            self.set_status(204)
            self.finish()
            return
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")
        self.service.metrics.streams.inc()
        service = self.service
        audience = streams.Audience(
            call.caller, self._again, lambda: service.recheck_now, call.ctx.clock.now
        )
        following = asyncio.ensure_future(
            streams.follow(
                call.ctx,
                audience,
                self._send_event,
                reservation_id=plan.reservation_id,
                last_id=plan.last_id,
                keepalive=self.service.keepalive,
                stuck=self.service.stuck,
            )
        )
        self._following = following
        self.service.streams.add(following)
        try:
            with self._own_server(call, plan.reservation_id):
                await following
        except TimeoutError:
            # The reader does not read: what waits for it goes with the connection.
            cast("Any", self.request.connection).stream.close()
        except (StreamClosedError, asyncio.CancelledError):
            # The reader has gone, or the service ends. A task that is itself cancelled goes on so.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
        finally:
            self.service.streams.discard(following)
            self.service.metrics.streams.dec()
        if not self._finished:
            self.finish()

    def _own_server(self, call: Call[Any, Any], key: str | None) -> AbstractContextManager[None]:
        """While the stream lasts: that the reservation's own server listens, where it is it."""
        owner = call.owner
        servers = call.caller.grants.servers(Right.LAB)
        if key is None or owner is None or (owner.user, owner.server_name) not in servers:
            return nullcontext()
        return call.ctx.labs.listening(key)

    async def _again(self) -> Caller:
        caller = await self.service.auth.caller(self)
        if self.call_owner is not None:
            await access.reservation_owner(
                self.service.ctx, cast("Route", self.route).access, caller, self.parameters["id"]
            )
        return caller

    async def _send_event(self, text: str) -> None:
        self.write(text)
        await cast("Awaitable[None]", self.flush())

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self.service.ended()

    def on_connection_close(self) -> None:
        """A reader who goes while nothing happens is let go at once."""
        self._uncount()
        following = getattr(self, "_following", None)
        if following is not None:
            following.cancel()

    # --- answers ------------------------------------------------------------------------------

    def _send(self, status: int, answer: Any, media: str) -> None:
        if isinstance(answer, bytes):
            self.set_status(status)
            self.set_header("Content-Type", media)
            self.finish(answer)
        else:
            self._send_text(status, _json(answer), media)

    def _send_text(self, status: int, text: str, media: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", media if status < 400 else "application/json")  # noqa: PLR2004
        self.finish(text)

    def refuse(self, refusal: Refusal) -> None:
        if self._finished:
            return
        if refusal.status in {429, 503} or refusal.code == "in_progress":
            self.set_header("Retry-After", "1")
        if refusal.status == CODES["not_authenticated"]:
            self.set_header("WWW-Authenticate", 'token realm="gpudev"')
        self._send_text(refusal.status, _json(error_answer(refusal)), "application/json")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What tornado itself refuses, and defects: an answer with nothing but the request's id.

        The body may be unread then, and tornado closes the connection: the proxy has to know, or it
        gives the broken connection to the next caller.
        """
        self.set_header("Connection", "close")
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, Refusal):
            self.refuse(error)
        elif isinstance(error, HTTPError) and status_code == CODES["unknown_action"]:
            self.refuse(Refusal("unknown_action", "This method is not known here."))
        elif isinstance(error, HTTPError) and status_code < CODES["internal"]:
            self.refuse(Refusal("bad_request", "The request cannot be read."))
        else:
            self.refuse(
                Refusal(
                    "internal",
                    f"Something went wrong in gpudev. Tell your operators: request "
                    f"{self.request_id}.",
                )
            )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, HTTPError | Refusal):
            return
        log.error(
            "request failed",
            exc_info=(typ, value, tb),
            extra={"fields": {"request_id": self.request_id, "route": self.route_name}},
        )

    def on_finish(self) -> None:
        self._uncount()
        metrics = self.service.metrics
        metrics.requests.labels(self.route_name, str(self.get_status())).inc()
        if self.route is None or not self.route.stream:
            metrics.latency.labels(self.route_name).observe(self.request.request_time())


def error_answer(refusal: Refusal) -> ErrorAnswer:
    return ErrorAnswer(
        error=ErrorBody(
            code=refusal.code,
            message=refusal.message,
            field=refusal.field,
            accepted=refusal.accepted,
        )
    )


_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def _json(answer: Any) -> str:
    if isinstance(answer, BaseModel):
        return answer.model_dump_json()
    return json.dumps(_ANY.dump_python(answer, mode="json"))


def _noun(route: Route) -> str:
    for name in reversed(route.parameters):
        if name in _NOUNS:
            return _NOUNS[name]
    return "disk" if route.path.startswith("/disks") else "GPU type"

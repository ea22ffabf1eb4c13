"""What all pages have in common: who looks, headers, forms, results, errors."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthenticated
from pydantic import BaseModel
from tornado.httputil import parse_body_arguments
from tornado.web import HTTPError, RequestHandler

from gpudev_client import limits
from gpudev_service.api import access, validation
from gpudev_service.api.auth import Caller, too_many
from gpudev_service.api.bodies import BodyHandler
from gpudev_service.api.idempotency import Stored, hash_of
from gpudev_service.api.permissions import Right
from gpudev_service.api.route import Access, Call
from gpudev_service.api.service import Service
from gpudev_service.api.storage import refusal_of
from gpudev_service.disks.base import DiskError
from gpudev_service.errors import Refusal
from gpudev_service.events import Owner
from gpudev_service.operations import status
from gpudev_service.store.errors import OutcomeUnknown, StoreBroken, StoreUnavailable

from . import headers, menu, rendering
from .addresses import Addresses
from .forms import OWN_FIELDS, Form, Forms

log = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=BaseModel)

#: Name and life (days) of the cookie that carries a result across the redirect after a form.
_FLASH = "gpudev-result"
_FLASH_DAYS = 1 / 1440
_FLASH_MAX = 1000


@dataclass(frozen=True, slots=True)
class Done:
    """What a form has led to: a sentence, and the page to go on with."""

    message: str
    address: str


class PageHandler(HubOAuthenticated, BodyHandler):
    """Base of all pages. A page is shown only to whom the Hub knows; what they may see and do on it
    is asked of the API's functions."""

    #: Fields of forms are longer on the way than what they say.
    body_max = 1024 * 1024
    #: Which entry of the navigation is the present one.
    tab = ""
    #: Parts of a page are fetched by our script: they never lead to the Hub's login.
    fragment = False
    #: Where the answer to a form of this page may lead beyond our own pages.
    form_targets: tuple[str, ...] = ()

    def initialize(self, service: Service) -> None:
        self.service = service
        self.hub_auth = service.auth.hub_auth
        prefix = service.prefix.rstrip("/") + "/"
        hub = f"{self.hub_auth.hub_host}{self.hub_auth.hub_prefix}".rstrip("/") + "/"
        self.addresses = Addresses(prefix, hub)
        self.route_name = f"page {type(self).__name__}"
        self.caller_name = ""
        self._caller: Caller | None = None
        # JupyterHub's own `current_user` asks the Hub while everybody else waits; it reads this
        # instead, which is set once we know who calls.
        self._hub_auth_user_cache: dict[str, str] | None = None
        self.last_event = 0

    # --- who ----------------------------------------------------------------------------------

    @property
    def caller(self) -> Caller:
        if self._caller is None:
            raise RuntimeError("a page was shown before its viewer was known")
        return self._caller

    @property
    def is_admin(self) -> bool:
        return self._caller is not None and self._caller.admin

    def set_default_headers(self) -> None:
        # Once for a request: tornado comes here again before it answers with an error.
        if not hasattr(self, "request_id"):
            self.request_id = secrets.token_hex(8)
            self.nonce = secrets.token_urlsafe(16)
        for name, value in headers.of_page().items():
            self.set_header(name, value)
        self.set_header("X-Request-Id", self.request_id)
        self.clear_header("Server")

    def check_xsrf_cookie(self) -> None:
        """Not here: the authenticator checks it before a cookie is believed, and only then; a call
        with a token in its header has no cookie that somebody else's page could use."""

    async def prepare(self) -> None:
        self.begin_body()
        if self.announced > self.body_max:
            await self.refuse_body(self.too_large())
        elif self.request.method != "POST":
            await self.enter()

    async def post(self, *path: str) -> None:
        """A form. Who sends it is found out once it is read: it carries the value that shows that
        it comes from our page."""
        raw = self.end_body()
        if raw is None:
            return
        content_type = self.request.headers.get("Content-Type", "")
        parse_body_arguments(content_type, raw, self.request.body_arguments, self.request.files)
        for name, values in self.request.body_arguments.items():
            self.request.arguments.setdefault(name, []).extend(values)
        await self.enter()
        if not self._finished:
            await self.sent(*path)

    async def _no_form(self, *_: str) -> None:
        raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)

    #: Does what a form of this page asks for; takes the variable parts of the path.
    sent: Callable[..., Awaitable[None]] = _no_form

    async def enter(self) -> None:
        """Finds out who looks; whom nobody knows is sent to the Hub's login."""
        auth, limit = self.service.auth, self.service.limit
        if not auth.has_credentials(self) and not limit.take(str(self.request.remote_ip)):
            raise too_many()
        try:
            await self.identify()
        except Refusal as refusal:
            if refusal.code != "not_authenticated":
                raise
            self._log_in()
            return
        access.check_caller(Access.READ, self.caller)
        if not self.fragment:
            # Read before the page's state: the script asks for what has happened since.
            self.last_event = await status.last_event(self.service.ctx)

    async def identify(self) -> None:
        """Asks the Hub who calls.

        Raises:
            Refusal: as `Authenticator.caller`.
        """
        self._caller = caller = await self.service.auth.caller(self)
        self._hub_auth_user_cache = {"name": caller.name, "kind": caller.kind}
        self.caller_name = caller.key

    def _log_in(self) -> None:
        if self.request.method == "GET" and self._navigates:
            # The Hub brings the person back to exactly this address, which is one of ours.
            self.go_to(str(self.get_login_url()))  # type: ignore[no-untyped-call]
            return
        raise Refusal(
            "not_authenticated",
            "Your login has ended. Open this page again to log in, and then repeat what you did.",
        )

    @property
    def _navigates(self) -> bool:
        """A person's browser goes to the page; else our script fetches it to bring one up to
        date."""
        mode = self.request.headers.get("Sec-Fetch-Mode", "navigate")
        return mode == "navigate" and not self.fragment

    # --- calls --------------------------------------------------------------------------------

    def call(
        self,
        *,
        path: dict[str, str] | None = None,
        query: Any = None,
        body: Any = None,
        owner: Owner | None = None,
    ) -> Call[Any, Any]:
        """The same authorised request that the API's functions take."""
        return Call(
            ctx=self.service.ctx,
            service=self.service,
            caller=self.caller,
            path=path or {},
            query=query,
            body=body,
            owner=owner,
            request_id=self.request_id,
        )

    def may_see(self, owner: Owner) -> bool:
        return self.caller.grants.may(Right.READ, owner)

    def read_query(self, model: type[ModelT]) -> ModelT:
        """The query's parameters; empty ones count as left out, as browsers send them so."""
        arguments = self.request.query_arguments
        return validation.read_query(_given(arguments), model)

    def read_form(self, model: type[ModelT], **fixed: str) -> ModelT:
        """The form's fields as a request; `fixed` are those that the page itself knows."""
        fields = {
            name: values
            for name, values in _given(self.request.body_arguments).items()
            if name not in OWN_FIELDS
        }
        return validation.read_query(
            fields | {name: [value.encode()] for name, value in fixed.items()}, model
        )

    # --- forms --------------------------------------------------------------------------------

    def typed(self) -> dict[str, str]:
        """What stands in the form that was sent."""
        return {
            name: values[-1].decode(errors="replace")[: limits.BODY_MAX]
            for name, values in self.request.body_arguments.items()
            if name not in OWN_FIELDS
        }

    def refused(self, name: str, refusal: Refusal, key: str = "") -> Forms:
        """The page's forms after `refusal` of this one; sets the status. What is not there, or not
        allowed, has no form to come back to."""
        if refusal.code in {"not_found", "not_allowed", "unavailable", "internal"} and (
            refusal.field is None
        ):
            raise refusal
        self.set_status(refusal.status)
        return Forms(Form(name, key, self.typed(), refusal))

    async def submit(self, work: Callable[[], Awaitable[Done]]) -> None:
        """Does what a form asks for, once however often it is sent, and shows the result on the
        next page, which can be loaded again without sending the form again."""
        once = self.get_body_argument("once", "")
        if not once:
            self._go(await work())
            return
        key = validation.idempotency_key(f"page:{once}")
        summary = hash_of(
            "POST", self.request.path or "", "", json.dumps(self.typed(), sort_keys=True).encode()
        )
        store = self.service.idempotency
        async with store.claim(self.caller.key, key, summary) as claim:
            if isinstance(claim, Stored):
                self._go(Done(**json.loads(claim.body)))
                return
            if claim.marked:  # done, but the answer was lost in a crash
                self._go(Done("This has been done already.", self.addresses.home))
                return
            try:
                done = await work()
            except BaseException:
                if not claim.marked:
                    await store.release(claim)
                raise
            answer = json.dumps({"message": done.message, "address": done.address})
            await store.keep(claim, HTTPStatus.SEE_OTHER, answer)
            self._go(done)

    def _go(self, done: Done) -> None:
        self.set_secure_cookie(
            _FLASH,
            done.message[:_FLASH_MAX],
            expires_days=_FLASH_DAYS,
            path=self.addresses.prefix,
            httponly=True,
            samesite="Lax",
            secure=self.request.protocol == "https",
        )
        self.go_to(local(done.address), HTTPStatus.SEE_OTHER)

    def go_to(self, address: str, status: HTTPStatus = HTTPStatus.FOUND) -> None:
        RequestHandler.redirect(self, address, status=status)

    def _result(self) -> str | None:
        """The result of the form before; shown once."""
        if self.get_cookie(_FLASH) is None:
            return None
        text = self.get_secure_cookie(_FLASH, max_age_days=_FLASH_DAYS)
        self.clear_cookie(_FLASH, path=self.addresses.prefix)
        return text.decode(errors="replace") if text else None

    # --- answers ------------------------------------------------------------------------------

    def show(self, template: str, **values: Any) -> None:
        """Answers with a page."""
        self.finish(self.rendered(template, **values))

    def rendered(self, template: str, **values: Any) -> str:
        caller = self._caller
        known = caller is not None
        self.set_header("Content-Security-Policy", self._policy())
        return rendering.render(
            template,
            **{
                "a": self.addresses,
                "viewer": caller.name if caller else None,
                "is_admin": self.is_admin,
                "hub_admin": menu.has_admin(caller.scopes) if caller else False,
                "services": menu.services(caller.scopes, self.addresses.prefix) if caller else [],
                "last_event": self.last_event,
                "nonce": self.nonce,
                "now": self.service.ctx.clock.now(),
                "once": lambda: secrets.token_urlsafe(12),
                "result": self._result() if known and self._navigates else None,
                "tab": self.tab,
                # Reading it sets the cookie; whom we do not know gets none.
                "xsrf": self.xsrf_token.decode() if known else "",
                "forms": Forms(),
                **values,
            },
        )

    def _policy(self) -> str:
        static = f"{self.addresses.hub}static/"
        ours = static.startswith("/")
        return headers.policy(
            self.nonce,
            styles=headers.below(self.request.host, static) if ours else (static,),
            form_targets=self.form_targets,
        )

    def refuse(self, refusal: Refusal) -> None:
        self.send_error(refusal.status, exc_info=(Refusal, refusal, None))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """An error in the look of the pages: what a person can do about it, never how it came."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, StoreUnavailable):
            log.warning("request %s: %s", self.request_id, error)
            error = Refusal("unavailable", _of_store(error))
        if isinstance(error, DiskError):
            log.warning("request %s: %s: %s", self.request_id, type(error).__name__, error)
            error = refusal_of(error)
        if isinstance(error, Refusal):
            self.set_status(error.status)
            if error.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
                self.set_header("Retry-After", "1")
            message = error.message
        else:
            message = _STATUS_WORDS.get(status_code, _STATUS_WORDS[500])
        http = HTTPStatus(self.get_status())
        if self.fragment:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(message)
            return
        self.finish(
            self.rendered(
                "error.html",
                status=http,
                message=message,
                request_id=self.request_id,
                result=None,
                retry=self.request.method == "GET" or http is HTTPStatus.UNAUTHORIZED,
                here=local(self.request.uri or self.addresses.home),
            )
        )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, HTTPError | Refusal | StoreUnavailable | DiskError):
            return
        log.error(
            "page failed",
            exc_info=(typ, value, tb),
            extra={"fields": {"request_id": self.request_id, "route": self.route_name}},
        )

    def on_finish(self) -> None:
        metrics = self.service.metrics
        metrics.requests.labels(self.route_name, str(self.get_status())).inc()
        metrics.latency.labels(self.route_name).observe(self.request.request_time())


class NotFound(PageHandler):
    """Every address that is no page."""

    async def get(self, *_: str) -> None:
        raise Refusal("not_found", "There is no page at this address.")

    sent = put = delete = patch = get


def local(address: str) -> str:
    """`address` without scheme and host: a redirect never leaves for another site."""
    try:
        parts = urlsplit(address)
    except ValueError:  # a host that is none
        return "/"
    path = "/" + parts.path.lstrip("/\\")
    return f"{path}?{parts.query}" if parts.query else path


def _of_store(error: StoreUnavailable) -> str:
    """What somebody can do who has no key for a second try."""
    match error:
        case StoreBroken():
            return "The database cannot be used until an administrator has put it right."
        case OutcomeUnknown():
            return (
                "The database went away while this was being stored, and it may have been done. "
                "Look first whether it was, and try again if not."
            )
        case _:
            return "The database is away for a moment. Try again soon."


def _given(arguments: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """The arguments that have a value: browsers send the fields that were left empty, too."""
    given = {name: [v for v in values if v.strip()] for name, values in arguments.items()}
    return {name: values for name, values in given.items() if values}


_STATUS_WORDS = {
    400: "The request cannot be read.",
    403: "This form was not sent from our page, or the page was open for too long. Go back, reload "
    "the page, and send the form again.",
    404: "There is no page at this address.",
    405: "This cannot be done here.",
    500: "Something went wrong in gpudev. Tell your operators the number of the request.",
}

"""Where `gpu-dev login` sends the browser: asks the person, then leads back to the command line.

The protocol stands in `docs/contributing/cli-login.md`. Looking at the page never makes anything;
the only address it leads to is the command line's own, on this machine.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import Field, StringConstraints, field_validator

from gpudev_client import words
from gpudev_client.models import Request, printable
from gpudev_service.api.permissions import Right, read_scopes
from gpudev_service.errors import Refusal

from .base import PageHandler

_STATE = r"^[A-Za-z0-9_-]{22,128}$"
_CHALLENGE = r"^[A-Za-z0-9_-]{43}$"


class LoginQuery(Request):
    """What the command line says of itself."""

    port: int = Field(ge=1024, le=65535)
    state: Annotated[str, StringConstraints(pattern=_STATE)]
    challenge: Annotated[str, StringConstraints(pattern=_CHALLENGE)]
    name: Annotated[str, StringConstraints(max_length=100, strip_whitespace=True)] = ""

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        return printable(value)

    @property
    def origin(self) -> str:
        """Where the command line listens; never anywhere else."""
        return f"http://127.0.0.1:{self.port}"


class LoginForm(LoginQuery):
    answer: Literal["confirm", "refuse"]


class CliLogin(PageHandler):
    """GET asks, POST answers the command line."""

    async def get(self) -> None:
        try:
            query = self.read_query(LoginQuery)
        except Refusal:
            raise _not_ours() from None
        logins = self.service.logins
        # Browsers hold the redirect after a form against form-action, too.
        self.form_targets = (query.origin,)
        self.show(
            "cli-login.html",
            query=query,
            may=_in_words(logins.scopes(self.caller)),
            life=words.duration(logins.life),
        )

    async def sent(self) -> None:
        try:
            form = self.read_form(LoginForm)
        except Refusal:
            raise _not_ours() from None
        answer = {"error": "refused"}
        if form.answer == "confirm":
            login = str(self.hub_auth.get_token(self) or "")
            code = self.service.logins.begin(self.caller, login, form.challenge, form.name)
            answer = {"code": code}
        query = urlencode({**answer, "state": form.state})
        self.go_to(f"{form.origin}/callback?{query}", HTTPStatus.SEE_OTHER)


def _not_ours() -> Refusal:
    """What is not exactly as described leads nowhere."""
    return Refusal(
        "bad_request", "This is not a login that `gpu-dev login` has begun. Run it again."
    )


def _in_words(scopes: tuple[str, ...]) -> str:
    """What a token with these scopes may do."""
    grants = read_scopes(scopes)
    if grants.somewhere(Right.ADMIN):
        return "do everything at gpudev that you may do as an admin"
    if grants.somewhere(Right.CREATE):
        return "reserve GPUs, extend and end your reservations, and manage your disks"
    return "look at your reservations and disks"

"""Between the service and `gpudev_lab` in a reservation's server, and the way in by SSH."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from gpudev_client import limits

from .base import Answer, Note, Request
from .disks import Disk, Snapshot
from .people import Role, SshKeyLine
from .reservations import Reservation


class SshAccess(Answer):
    """The way into a reservation's server by SSH, for one connection.

    `url` is where the SSH connection is made, `ticket` opens it once and not after `expires_at`.
    `host_keys` are the server's public keys, as lines of `known_hosts` without the host. `home` is
    the home directory there, for links that open an editor in it.
    """

    host: str
    login: str
    home: str | None = None
    url: str
    ticket: str = Field(repr=False)
    expires_at: AwareDatetime
    host_keys: list[str]


class TicketRequest(Request):
    """A ticket of `SshAccess`, as somebody presents it to the server."""

    ticket: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(repr=False)


class TicketHolder(Answer):
    """Whose ticket it was; `keys` are their public keys at this moment."""

    user: str
    role: Role
    keys: list[str]
    owner: bool


class SshHostReport(Request):
    """How a server is reached by SSH: its public host keys, the account to log in with, and where
    one is then. Or only `unavailable`: why it is not, in a sentence."""

    host_keys: list[SshKeyLine] = Field(default=[], max_length=8)
    login: Annotated[str, StringConstraints(pattern=rf"^{limits.LOGIN_NAME}$")] | None = None
    home: (
        Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=4096)] | None
    ) = None
    unavailable: (
        Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=300)] | None
    ) = None

    @model_validator(mode="after")
    def _one_of_both(self) -> SshHostReport:
        if self.unavailable is not None:
            if self.host_keys or self.login or self.home:
                raise ValueError("say either how the server is reached or why it is not")
        elif not self.host_keys or self.login is None:
            raise ValueError("say host_keys and login, or why there is no SSH: unavailable")
        return self


class LabAccess(Answer):
    """Somebody who may see the reservation, or also open its server (`use`)."""

    user: str
    role: Role
    keys: list[str]
    until: AwareDatetime | None
    owner: bool


class ClosingTimes(Answer):
    """Seconds before a lease's end: for the owner's hook, and then for saving what is open. An
    early end (given back, cancelled) waits for `early_seconds` in all."""

    hook_seconds: float
    save_seconds: float
    early_seconds: float


class LabView(Answer):
    """Everything that a reservation's own server has to know. `access` has the owner first;
    `snapshots` are the disk's newest ones."""

    reservation: Reservation
    access: list[LabAccess]
    disk: Disk | None
    snapshots: list[Snapshot]
    closing: ClosingTimes


class ClosingReport(Request):
    """What a server did before its end: how many documents it saved, which it could not, and how
    the owner's hook went."""

    saved: int = Field(ge=0, le=100_000)
    unsaved: list[Annotated[str, StringConstraints(max_length=1_000)]] = Field(
        default=[], max_length=100
    )
    hook: Note | None = None

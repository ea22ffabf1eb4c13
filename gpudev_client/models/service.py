"""The service itself, and the caller as it sees them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from .base import Answer, Request


class LoopHealth(Answer):
    name: str
    last_run_at: AwareDatetime | None
    ok: bool
    message: str | None = None


class Health(Answer):
    """`status` is `ok`, or `degraded` with the failing parts named in `loops` and `database`.

    `leader`: whether the replica that was asked leads, or stands by.
    """

    status: Literal["ok", "degraded"]
    version: str
    database: bool = True
    leader: bool = True
    loops: list[LoopHealth] = []


class PolicyView(Answer):
    """The limits of one user, the most generous of their groups. None means no limit."""

    max_hours: float
    max_extension_hours: float
    max_total_hours: float
    max_reservations: int | None
    max_gpus: int | None
    max_running_gpus: int | None = Field(
        default=None,
        description="GPUs of one type that leases hold at the same time; what is beyond it waits.",
    )
    max_disks: int | None
    max_disk_gb: int | None = Field(
        default=None, description="The largest disk, where disks have sizes of their own."
    )
    priority: int
    disk_retention_days: int
    snapshots_kept: int
    images: list[str] = Field(
        default=[], description="Patterns of container images that may be asked for."
    )


class Me(Answer):
    """The caller as the service sees them, with the limits that policy sets."""

    name: str
    kind: str
    admin: bool
    groups: list[str]
    scopes: list[str]
    policy: PolicyView


class CliTokenRequest(Request):
    """Trades the one-time code of a browser login for a token; `verifier` is PKCE's (S256)."""

    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22,128}$")]
    verifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{43,128}$")]


class CliToken(Answer):
    """A token for the command line: whose it is, what it may do, until when (None: no end)."""

    token: str = Field(repr=False)
    name: str
    scopes: list[str] = []
    expires_at: AwareDatetime | None = None

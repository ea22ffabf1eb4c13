"""Scopes and roles: who may do what, each with its reason.

The scopes are gpudev's own (`custom:gpudev:…`) and JupyterHub's; the service decides by them alone.
A Hub admin does not hold custom scopes by being one, so admins get a role too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: The service's name, and with it its place: `/services/gpudev/`.
SERVICE = "gpudev"
#: The Hub service that stands for the spawner; it has a token and no address.
SPAWNER_SERVICE = "gpudev-spawner"

#: To be let in at the service at all.
ACCESS = f"access:services!service={SERVICE}"

#: For `JupyterHub.custom_scopes`. The descriptions are what people read when they are asked to
#: confirm a token.
SCOPES: Mapping[str, Mapping[str, Any]] = {
    "custom:gpudev:read": {
        "description": "See GPU reservations and disks.",
    },
    "custom:gpudev:reserve": {
        "description": "Reserve GPUs, extend and cancel reservations, manage disks.",
        "subscopes": ["custom:gpudev:read"],
    },
    "custom:gpudev:lab": {
        "description": "Tell a reservation's own server about its lease, and who may come in.",
    },
    "custom:gpudev:spawner": {
        "description": "Start the servers of reservations and report how they are (for the Hub).",
    },
    "custom:gpudev:admin": {
        "description": "Manage everybody's GPU reservations, disks and the fleet.",
        "subscopes": ["custom:gpudev:reserve", "custom:gpudev:lab"],
    },
}

#: (scope, why) of the role of every user. It replaces the Hub's own role `user`.
USER: Sequence[tuple[str, str]] = (
    ("self", "what every user of the Hub may do; the Hub's own default"),
    (ACCESS, "open gpudev's pages and API"),
    ("custom:gpudev:reserve!user", "reserve for themselves, and nobody else"),
    ("custom:gpudev:lab!user", "hold what the tokens of their own servers are given"),
)

#: (scope, why) of administrators.
ADMIN: Sequence[tuple[str, str]] = (
    (ACCESS, "open gpudev's pages and API"),
    ("custom:gpudev:admin", "manage everybody's reservations and the fleet"),
)

#: (scope, why) of the service itself, at the Hub's API.
SERVICE_SCOPES: Sequence[tuple[str, str]] = (
    ("list:users", "find servers without a lease after a crash"),
    ("read:users:name", "know whose servers they are"),
    ("read:users:groups", "policy by group, when the spawner or an admin reserves for somebody"),
    ("read:servers", "find leases whose server is gone"),
    ("shares", "let collaborators into the server, and out again (it contains access to servers)"),
    ("servers", "start the server when a reservation's turn comes, stop it at the lease's end"),
    ("delete:servers", "remove the rows of servers that gpudev named, when they are over"),
)

#: (scope, why) of the spawner, at the service.
SPAWNER_SCOPES: Sequence[tuple[str, str]] = (
    (ACCESS, "call the service's API"),
    ("custom:gpudev:spawner", "reserve for whoever starts a server, launch it, report about it"),
)

#: (scope, why) of the token in each server's environment. Without the `access:servers!server` that
#: the Hub would give it: whoever works in the server can read this token, and with that scope
#: somebody who was removed would come in with it again, as the owner. People come in by their own
#: login; no Hub that is supported needs the scope for that.
SERVER_TOKEN: Sequence[tuple[str, str]] = (
    ("users:activity!user", "report activity, as every server of the Hub does"),
    (ACCESS, "call the service's API"),
    ("custom:gpudev:lab!server", "see its own reservation and who may come in, and no other"),
)

#: (scope, why) of the login of whoever opens a server in the browser, as far as they hold it. So
#: the owner can extend, invite and end from the Lab, and a collaborator cannot.
VISITOR: Sequence[tuple[str, str]] = (
    (ACCESS, "call the service's API"),
    ("custom:gpudev:reserve!server", "see, extend, share and end this reservation, and no other"),
)

#: What a browser's login at the service may be used for; limited to what the person holds.
LOGIN_SCOPES: Sequence[str] = (
    ACCESS,
    "custom:gpudev:read",
    "custom:gpudev:reserve",
    "custom:gpudev:admin",
    # `gpu-dev login`: the service makes the command line's token with the person's own login, and
    # so needs no right to make tokens for people who have not asked.
    "tokens!user",
    # Shows the Hub's page for administrators in the menu; it allows nothing else. Services that are
    # to stand there need their `access:services!service=NAME` here.
    "admin-ui",
)


def names(scopes: Iterable[tuple[str, str]]) -> list[str]:
    """The scopes without their reasons."""
    return [scope for scope, _ in scopes]


def load_roles(
    *, admins: Iterable[str] = (), group_admins: Mapping[str, Iterable[str]] | None = None
) -> list[dict[str, Any]]:
    """For `JupyterHub.load_roles`.

    Args:
        admins: users who manage everything.
        group_admins: by Hub group, the users who manage the reservations of its members.
    """
    roles: list[dict[str, Any]] = [
        {"name": "user", "scopes": names(USER)},
        {
            "name": "gpudev-admin",
            "description": "Manage all GPU reservations and the fleet",
            "scopes": names(ADMIN),
            "users": sorted(admins),
        },
        {
            "name": "gpudev-service",
            "description": "What the gpudev service needs of the Hub",
            "scopes": names(SERVICE_SCOPES),
            "services": [SERVICE],
        },
        {
            "name": "gpudev-spawner",
            "description": "What the Hub's spawner needs of gpudev",
            "scopes": names(SPAWNER_SCOPES),
            "services": [SPAWNER_SERVICE],
        },
    ]
    for group, members in sorted((group_admins or {}).items()):
        roles.append(
            {
                "name": f"gpudev-admin-of-{group}",
                "description": f"Manage the GPU reservations of the members of {group}",
                "scopes": [ACCESS, f"custom:gpudev:reserve!group={group}"],
                "users": sorted(members),
            }
        )
    return roles

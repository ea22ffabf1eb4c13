"""The demo's `jupyterhub_config.py`."""

from __future__ import annotations

import secrets
from typing import Any

from jupyterhub.auth import Authenticator

from gpudev_hub_config import local, roles
from tools.demo import leases
from tools.demo.place import ADMIN, USERS, present

place = present()


class DemoAuthenticator(Authenticator):
    """A few names with one password, for a Hub that only this machine can reach."""

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        given = data["password"].encode()
        return data["username"] if secrets.compare_digest(given, self.password) else None

    password = place.password.encode()


c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the Hub gives it

local.configure(
    c,
    data_dir=place.hub_dir,
    service_config=__file__.replace("hub.py", "service.py"),
    ports=place.ports,
    admins=[ADMIN],
    environment=place.environment,
)
c.JupyterHub.authenticator_class = DemoAuthenticator
c.Authenticator.allowed_users = {*USERS, ADMIN}
c.Authenticator.admin_users = {ADMIN}

# Makes the token that the demo writes for ada, once at the start, and starts the servers of leases
# that still run; it may do nothing else.
c.JupyterHub.services.append({"name": leases.NAME, "api_token": leases.token(place)})
c.JupyterHub.load_roles.append(
    {
        "name": leases.NAME,
        "scopes": [
            f"tokens!user={USERS[0]}",
            roles.ACCESS,
            "custom:gpudev:read",
            *(f"servers!user={name}" for name in (*USERS, ADMIN)),
            *(f"read:users:name!user={name}" for name in (*USERS, ADMIN)),
        ],
        "services": [leases.NAME],
    }
)

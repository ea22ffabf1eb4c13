"""The demo's `jupyterhub_config.py`."""

from __future__ import annotations

import secrets
from typing import Any

from jupyterhub.auth import Authenticator

from gpudev_hub_config import local
from gpudev_hub_config.secrets import secret
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

# Makes the token that the demo writes for ada, once at the start; it may do nothing else.
c.JupyterHub.services.append(
    {"name": "gpudev-demo", "api_token": secret(place.hub_dir / "secrets", "demo_token")}
)
c.JupyterHub.load_roles.append(
    {
        "name": "gpudev-demo",
        "scopes": [f"tokens!user={USERS[0]}"],
        "services": ["gpudev-demo"],
    }
)

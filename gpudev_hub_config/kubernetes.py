"""A Hub on Kubernetes, as zero-to-jupyterhub runs it: servers as pods, the service beside the Hub.

In the chart's `hub.extraConfig`, behind everything that the chart sets itself:

    from gpudev_hub_config import kubernetes
    kubernetes.configure(c, service_url="http://gpudev:10101/services/gpudev")

What is configured already stays; only what is missing is added. The tokens of the two Hub services
come from the chart (`hub.services.gpudev`, `hub.services.gpudev-spawner`), or from the
environment: GPUDEV_SERVICE_TOKEN and GPUDEV_SPAWNER_TOKEN.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from gpudev_spawner import HUB_TEMPLATES

from . import logs, roles
from .local import CACHE_MAX_AGE

#: The reservation service, where `configure` is not told.
SERVICE_URL = "GPUDEV_SERVICE_URL"
SERVICE_TOKEN, SPAWNER_TOKEN = "GPUDEV_SERVICE_TOKEN", "GPUDEV_SPAWNER_TOKEN"
#: Seconds that a server may take to come up: a large image on a node that has not had it yet.
START_TIMEOUT = 900


def configure(
    c: Any,
    *,
    service_url: str | None = None,
    base_url: str = "/",
    admins: Iterable[str] = (),
    group_admins: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """Sets everything that gpudev needs of a Hub on Kubernetes; authenticator, proxy and images are
    left alone.

    Args:
        c: the Hub's configuration object.
        service_url: the service's address inside of the cluster with its prefix, without the proxy
            in between; else from GPUDEV_SERVICE_URL.
        base_url: the Hub's prefix at the proxy, with slashes.
        admins: users who administrate gpudev; Hub admins are set at the authenticator.
        group_admins: by Hub group, who manages the reservations of its members.
    """
    address = service_url or os.environ.get(SERVICE_URL)
    if not address:
        raise ValueError(f"give the service's address: service_url, or {SERVICE_URL}")
    address = address.rstrip("/")
    _hub(c)
    token = _services(c, address)
    _roles(c, admins, group_admins)
    _spawner(c, address, token, base_url)
    _pages(c, base_url)


def _hub(c: Any) -> None:
    # A Hub that ends leaves the servers alone: leases go on, and the next Hub finds them again.
    c.JupyterHub.cleanup_servers = False
    # Everybody who waits in the queue is a pending start; the planner bounds real starts.
    c.JupyterHub.concurrent_spawn_limit = 0
    c.JupyterHub.active_server_limit = 0
    # Each reservation is a named server; how many somebody may have is the service's policy.
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.named_server_limit_per_user = 0
    # A proxy that was started again has its routes back within half a minute.
    c.JupyterHub.last_activity_interval = 30
    _default(c.JupyterHub, "logging_config", dict(logs.SHORTENED))


def _services(c: Any, address: str) -> str:
    """Completes the two Hub services; the spawner's token."""
    services = _list(c.JupyterHub, "services")
    service = _named(services, roles.SERVICE, SERVICE_TOKEN)
    origin = "/".join(address.split("/")[:3])
    service.setdefault("url", origin)
    service.setdefault("oauth_no_confirm", True)
    service.setdefault("oauth_client_allowed_scopes", list(roles.LOGIN_SCOPES))
    service.setdefault("display", True)
    return str(_named(services, roles.SPAWNER_SERVICE, SPAWNER_TOKEN)["api_token"])


def _named(services: list[dict[str, Any]], name: str, variable: str) -> dict[str, Any]:
    """The Hub service of this name with its token, added where it is not there."""
    found = next((one for one in services if one.get("name") == name), None)
    if found is None:
        found = {"name": name}
        services.append(found)
    token = found.get("api_token") or os.environ.get(variable)
    if not token:
        raise ValueError(f"give the Hub service {name} its token: hub.services, or {variable}")
    found["api_token"] = token
    return found


def _roles(c: Any, admins: Iterable[str], group_admins: Mapping[str, Iterable[str]] | None) -> None:
    c.JupyterHub.custom_scopes = {
        **{name: dict(scope) for name, scope in roles.SCOPES.items()},
        **dict(c.JupyterHub.get("custom_scopes") or {}),
    }
    present = _list(c.JupyterHub, "load_roles")
    ours = roles.load_roles(admins=admins, group_admins=group_admins)
    named = {one["name"]: one for one in present}
    for role in ours:
        known = named.get(role["name"])
        if known is None:
            present.append(role)
            continue
        # An operator's own role of this name keeps what it has.
        for key in ("scopes", "users", "services", "groups"):
            if role.get(key):
                known[key] = list(dict.fromkeys([*(known.get(key) or []), *role[key]]))


def _spawner(c: Any, address: str, token: str, base_url: str) -> None:
    c.JupyterHub.spawner_class = "gpudev_spawner.kube.GpuDevKubeSpawner"
    c.GpuDevMixin.service_url = address
    c.GpuDevMixin.service_token = token
    c.GpuDevMixin.pages_url = f"{base_url}services/{roles.SERVICE}/"
    spawner = c.KubeSpawner
    # Disks are the service's; the Hub makes and removes none by a server's name.
    spawner.storage_pvc_ensure = False
    spawner.delete_pvc = False
    spawner.events_enabled = True
    _default(spawner, "cmd", ["jupyterhub-singleuser"])
    _default(spawner, "automount_service_account_token", False)
    _default(spawner, "allow_privilege_escalation", False)
    _default(spawner, "start_timeout", START_TIMEOUT)
    _default(spawner, "http_timeout", START_TIMEOUT)
    _default(spawner, "default_url", "/lab")
    c.Spawner.server_token_scopes = roles.names(roles.SERVER_TOKEN)
    c.Spawner.oauth_client_allowed_scopes = roles.names(roles.VISITOR)
    args, fresh = _list(spawner, "args"), f"--HubOAuth.cache_max_age={CACHE_MAX_AGE}"
    if fresh not in args:
        args.append(fresh)
    # A refusal (no such GPU type, quota) is an answer; on Hub 5 it would count as a failure and
    # enough of them would end the Hub.
    c.Spawner.consecutive_failure_limit = 0


def _pages(c: Any, base_url: str) -> None:
    # Late: the handlers import JupyterHub's, which must not happen while it reads this.
    from gpudev_spawner.handlers import HANDLERS

    _list(c.JupyterHub, "template_paths").append(str(HUB_TEMPLATES))
    c.JupyterHub.template_vars = {
        **dict(c.JupyterHub.get("template_vars") or {}),
        "gpudev_pages_url": f"{base_url}services/{roles.SERVICE}/",
    }
    _list(c.JupyterHub, "extra_handlers").extend(HANDLERS)


def _list(section: Any, name: str) -> list[Any]:
    """A list of the configuration, to add to."""
    found = section.get(name) if name in section else None
    if not isinstance(found, list):
        # What was only appended to so far, traitlets keeps apart until the class is there.
        lazy = getattr(found, "get_value", None)
        found = [] if lazy is None else list(lazy([]))
        section[name] = found
    return found


def _default(section: Any, name: str, value: Any) -> None:
    if name not in section:
        section[name] = value

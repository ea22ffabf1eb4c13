"""A Hub on one machine: local processes as servers, the service managed by the Hub.

In `jupyterhub_config.py`:

    from gpudev_hub_config import local
    local.configure(c, data_dir="/srv/gpudev", service_config="/srv/gpudev/gpudev_config.py")

The proxy is started beside the Hub and not by it, so that open connections survive a restart of the
Hub; `proxy_command` says how.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpudev_spawner import HUB_TEMPLATES

from . import logs, roles
from .secrets import secret

#: Seconds that a server may take to come up; below the service's own limit, so that the person
#: reads the spawner's reason and not only that time has passed.
START_TIMEOUT = 110
#: Seconds for which servers believe the Hub's word about a visitor; a removed one is out by then.
CACHE_MAX_AGE = 3


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one installation, all on `address`. Running servers know the Hub's port, so it
    has to stay the same over restarts."""

    public: int = 8000
    hub: int = 8081
    proxy_api: int = 8001
    service: int = 8082
    address: str = "127.0.0.1"

    def url(self, port: int) -> str:
        return f"http://{self.address}:{port}"


def configure(
    c: Any,
    *,
    data_dir: str | os.PathLike[str],
    service_config: str | os.PathLike[str],
    ports: Ports | None = None,
    base_url: str = "/",
    admins: Iterable[str] = (),
    group_admins: Mapping[str, Iterable[str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Sets everything that gpudev needs of a Hub on one machine; the authenticator is left alone.

    Args:
        c: the Hub's configuration object.
        data_dir: where the Hub's database and secrets are kept; made with mode 700.
        service_config: the service's configuration file (`gpudev --generate-config` writes one).
        ports: where the parts listen.
        base_url: the Hub's prefix at the proxy, with slashes.
        admins: users who administrate gpudev; Hub admins are set at the authenticator.
        group_admins: by Hub group, who manages the reservations of its members.
        environment: more variables for the service and all servers.
    """
    home = Path(data_dir).resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    ports = ports or Ports()
    extra = dict(environment or {})
    tokens = home / "secrets"
    _hub(c, home, ports, base_url)
    _proxy(c, tokens, ports)
    c.JupyterHub.custom_scopes = {name: dict(scope) for name, scope in roles.SCOPES.items()}
    c.JupyterHub.load_roles = roles.load_roles(admins=admins, group_admins=group_admins)
    c.JupyterHub.services = [
        _service(tokens, ports, Path(service_config), extra),
        {"name": roles.SPAWNER_SERVICE, "api_token": secret(tokens, "spawner_token")},
    ]
    _spawner(c, home, tokens, ports, base_url, extra)
    _pages(c, base_url)


def proxy_command(
    program: str, ports: Ports, *, data_dir: str | os.PathLike[str]
) -> tuple[list[str], dict[str, str]]:
    """How the proxy is started: its command line and what to add to its environment.

    Args:
        program: configurable-http-proxy, as found on this machine.
        ports: as given to `configure`.
        data_dir: as given to `configure`.
    """
    command = [
        program,
        f"--ip={ports.address}",
        f"--port={ports.public}",
        f"--api-ip={ports.address}",
        f"--api-port={ports.proxy_api}",
        f"--default-target={ports.url(ports.hub)}",
        f"--error-target={ports.url(ports.hub)}/hub/error",
    ]
    token = secret(Path(data_dir).resolve() / "secrets", "proxy_token")
    return command, {"CONFIGPROXY_AUTH_TOKEN": token}


def _hub(c: Any, home: Path, ports: Ports, base_url: str) -> None:
    c.JupyterHub.bind_url = ports.url(ports.public) + base_url
    c.JupyterHub.hub_bind_url = ports.url(ports.hub)
    c.JupyterHub.db_url = f"sqlite:///{home / 'jupyterhub.sqlite'}"
    c.JupyterHub.cookie_secret_file = str(_cookie_secret(home / "secrets"))
    # A Hub that ends leaves the servers alone: leases go on, and the next Hub finds them again.
    c.JupyterHub.cleanup_servers = False
    # Everybody who waits in the queue is a pending start; the planner bounds real starts.
    c.JupyterHub.concurrent_spawn_limit = 0
    c.JupyterHub.active_server_limit = 0
    # Each reservation is a named server; how many somebody may have is the service's policy.
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.named_server_limit_per_user = 0
    c.JupyterHub.logging_config = dict(logs.SHORTENED)


def _proxy(c: Any, tokens: Path, ports: Ports) -> None:
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = ports.url(ports.proxy_api)
    c.ConfigurableHTTPProxy.auth_token = secret(tokens, "proxy_token")
    # A proxy that was started again knows no routes. The Hub puts back those that are missing when
    # it asks for activity, which it would do only every five minutes.
    c.JupyterHub.last_activity_interval = 30


def _service(
    tokens: Path, ports: Ports, config: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "name": roles.SERVICE,
        "url": ports.url(ports.service),
        "command": [
            str(Path(sys.executable).with_name("gpudev")),
            f"--config={config.resolve()}",
        ],
        # Fixed, so that a service that outlived a killed Hub can go on with the next one.
        "api_token": secret(tokens, "service_token"),
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": list(roles.LOGIN_SCOPES),
        "display": True,
        "environment": dict(environment),
    }


def _spawner(
    c: Any, home: Path, tokens: Path, ports: Ports, base_url: str, environment: Mapping[str, str]
) -> None:
    c.JupyterHub.spawner_class = "gpudev_spawner.local.GpuDevLocalSpawner"
    c.GpuDevMixin.service_url = f"{ports.url(ports.service)}{base_url}services/{roles.SERVICE}"
    c.GpuDevMixin.service_token = secret(tokens, "spawner_token")
    c.GpuDevMixin.pages_url = f"{base_url}services/{roles.SERVICE}/"
    c.GpuDevLocalSpawner.log_dir = str(home / "server-logs")
    # Short ones: the service ends what does not go by itself.
    c.GpuDevLocalSpawner.interrupt_timeout = 5
    c.GpuDevLocalSpawner.term_timeout = 5
    c.Spawner.start_timeout = START_TIMEOUT
    c.Spawner.server_token_scopes = roles.names(roles.SERVER_TOKEN)
    c.Spawner.oauth_client_allowed_scopes = roles.names(roles.VISITOR)
    c.Spawner.args = [f"--HubOAuth.cache_max_age={CACHE_MAX_AGE}"]
    # A refusal (no such GPU type, quota) is an answer; on Hub 5 it would count as a failure and
    # enough of them would end the Hub.
    c.Spawner.consecutive_failure_limit = 0
    c.Spawner.default_url = "/lab"
    c.Spawner.environment = dict(environment)
    # JupyterLab by the Hub's own Python, whatever PATH says.
    c.Spawner.cmd = [str(Path(sys.executable).with_name("jupyterhub-singleuser"))]


def _pages(c: Any, base_url: str) -> None:
    # Late: the handlers import JupyterHub's, which must not happen while it reads this.
    from gpudev_spawner.handlers import HANDLERS

    c.JupyterHub.template_paths = [str(HUB_TEMPLATES)]
    c.JupyterHub.template_vars = {"gpudev_pages_url": f"{base_url}services/{roles.SERVICE}/"}
    c.JupyterHub.extra_handlers = HANDLERS


def _cookie_secret(tokens: Path) -> Path:
    secret(tokens, "cookie_secret")
    return tokens / "cookie_secret"

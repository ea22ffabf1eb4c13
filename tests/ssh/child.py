"""A Jupyter server with SSH, and beside it in the same process a stand-in for the service.

The stand-in speaks the models of the API and does what a test tells it at `/control`: who may come
in, with which keys, and what it answers. Run as `python -m tests.ssh.child PORT TOKEN`.
`SSH_TEST_BASE` is where the server lies at the proxy.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
from tornado.web import RequestHandler

from gpudev_client import errors, models
from gpudev_client.ids import MARK
from gpudev_client.states import State
from gpudev_lab import sshd
from gpudev_lab.sshd import relay
from tests.client import models as made
from tests.client.models import NOW

OWNER = "ada"
#: The reservation whose server this process is; whoever only imports this has another.
ID = os.environ.get(MARK, made.ID)
API = "/services/gpudev/api/v1"


def reservation(state: State = State.ACTIVE, **values: Any) -> models.Reservation:
    return made.reservation(state, **{"id": ID, "server_name": ID, **values})


class Service:
    """What the service knows, and the link that reads it without a network."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.refusal: dict[str, Any] | None = None
        self.refusals_left = 0
        self.report: models.SshHostReport | None = None
        self.reports = 0
        self._reported = asyncio.Event()
        self.cancelled = 0
        #: How many more times the host key cannot be published.
        self.unreachable = int(os.environ.get("SSH_TEST_UNREACHABLE", "0"))
        self.tickets: dict[str, str] = {}
        self.disk_made = NOW
        #: What is said to be the server's host keys, where that shall be wrong.
        self.host_keys: list[str] | None = None
        self.view: models.LabView | None = None
        self._listeners: list[Callable[[], Any]] = []

    def set(self, values: dict[str, Any]) -> None:
        relay.PING_EVERY = values.pop("ping_every", relay.PING_EVERY)
        for name, value in values.items():
            setattr(self, name, value)
        self.show()

    def show(self) -> None:
        access = [
            models.LabAccess(
                user=name,
                role=one.get("role", "use"),
                keys=one["keys"],
                until=one.get("until"),
                owner=name == OWNER,
            )
            for name, one in self.people.items()
            if not one.get("unlisted")
        ]
        disk = models.Disk(name="home", user=OWNER, created_at=self.disk_made)
        closing = models.ClosingTimes(hook_seconds=1, save_seconds=1, early_seconds=1)
        self.view = models.LabView(
            reservation=reservation(), access=access, disk=disk, snapshots=[], closing=closing
        )
        for listener in self._listeners:
            listener()

    # --- the link -----------------------------------------------------------------------------

    async def renew(self) -> models.LabView | None:
        return self.view

    def subscribe(self, callback: Callable[[], Any]) -> Callable[[], None]:
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def redeem(self, ticket: str) -> models.TicketHolder:
        user = self.tickets.pop(ticket, None)
        if user is None or user not in self.people:
            raise errors.NotAllowed("ticket", "This ticket has been used or is too old.")
        one = self.people[user]
        return models.TicketHolder(
            user=user, role=one.get("role", "use"), keys=one["keys"], owner=user == OWNER
        )

    async def publish_host(self, report: models.SshHostReport) -> None:
        if self.unreachable > 0:
            self.unreachable -= 1
            raise errors.Unreachable("The service cannot be reached.")
        self.report = report
        self.reports += 1
        self._reported.set()

    async def wait_for_reports(self, count: int) -> None:
        """Until the server has said how it is reached so many times."""
        while self.reports < count:
            self._reported.clear()
            await self._reported.wait()


class _Json(RequestHandler):
    def initialize(self, service: Service) -> None:
        self.service = service

    def check_xsrf_cookie(self) -> None:
        pass

    def answer(self, status: int, content: Any) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(content))

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, {"error": {"code": code, "message": message}})

    @property
    def user(self) -> str | None:
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        names = (name for name, one in self.service.people.items() if one["token"] == token)
        return next(names, None)


class Access(_Json):
    """POST /reservations/{id}/ssh"""

    def post(self, found: str) -> None:
        service = self.service
        if self.user is None:
            return self.refuse(401, "not_authenticated", "The token is not known.")
        if service.refusal is not None and service.refusals_left != 0:
            service.refusals_left -= 1
            return self.answer(service.refusal["status"], {"error": service.refusal})
        if found != ID:
            return self.refuse(404, "not_found", f"There is no reservation {found}.")
        if service.report is None:
            return self.refuse(409, "server_not_ready", "The server is starting.")
        ticket = secrets.token_urlsafe(24)
        service.tickets[ticket] = self.user
        base = os.environ["SSH_TEST_PUBLIC"]
        access = models.SshAccess(
            host=f"gpudev-{ID}",
            login=service.report.login or "",
            home=service.report.home,
            url=f"{base}{os.environ['SSH_TEST_BASE']}/gpudev/ssh",
            ticket=ticket,
            expires_at=datetime.now(UTC),
            host_keys=service.host_keys or service.report.host_keys,
        )
        return self.answer(200, access.model_dump(mode="json"))


class Listing(_Json):
    """GET /reservations, and POST, which gives the one that there is."""

    def post(self) -> None:
        self.answer(201, reservation(ssh_host=f"gpudev-{ID}").model_dump(mode="json"))

    def get(self) -> None:
        view = reservation(url=f"/user/{OWNER}/{ID}/", ssh_host=f"gpudev-{ID}")
        self.answer(200, {"items": [view.model_dump(mode="json")], "next_cursor": None})


class One(_Json):
    """GET /reservations/{id}, and DELETE, which is counted."""

    def delete(self, _found: str) -> None:
        self.service.cancelled += 1
        self.answer(200, reservation(State.CANCELLED).model_dump(mode="json"))

    def get(self, found: str) -> None:
        if self.user is None:
            return self.refuse(401, "not_authenticated", "The token is not known.")
        if found != ID:
            return self.refuse(404, "not_found", f"There is no reservation {found}.")
        view = reservation(url=f"/user/{OWNER}/{ID}/", ssh_host=f"gpudev-{ID}")
        return self.answer(200, view.model_dump(mode="json"))


class Me(_Json):
    """GET /me"""

    def get(self) -> None:
        limits = ("max_hours", "max_extension_hours", "max_total_hours", "priority")
        kept = ("disk_retention_days", "snapshots_kept")
        counts = ("max_reservations", "max_gpus", "max_disks")
        policy = {**dict.fromkeys((*limits, *kept), 1), **dict.fromkeys(counts)}
        own = {"name": self.user, "kind": "user", "admin": False, "policy": policy}
        self.answer(200, {**own, "groups": [], "scopes": []})


class Keys(_Json):
    """GET /users/{name}/ssh-keys"""

    def get(self, name: str) -> None:
        lines = self.service.people[name]["keys"]
        more = {"fingerprint": "x", "type": "x", "added_at": NOW.isoformat()}
        made = [{"key": one, **more} for one in lines]
        self.answer(200, {"items": made})


class Control(_Json):
    """GET what is, POST what shall be."""

    async def get(self) -> None:
        host = self.application.settings["gpudev_ssh"]
        sessions = [{"user": s.user, "pid": s.pid, "used": s.used} for s in host.sessions._sessions]
        activity = [[a.user, a.last.isoformat()] for a in await host.sessions.activity()]
        published = self.service.report is not None
        found = {"sessions": sessions, "activity": activity, "published": published}
        self.answer(200, {**found, "cancelled": self.service.cancelled})

    def post(self) -> None:
        self.service.set(json.loads(self.request.body))
        self.answer(200, {})


class Extension(ExtensionApp):
    """Loads SSH as `gpudev_lab` does."""

    name = "ssh_tests"

    def initialize_settings(self) -> None:
        assert self.serverapp is not None
        service = Service()
        own = {"service": service}
        self.serverapp.web_app.add_handlers(  # type: ignore[no-untyped-call]
            ".*$",
            [
                (rf"{API}/reservations/([^/]+)/ssh", Access, own),
                (rf"{API}/reservations", Listing, own),
                (rf"{API}/reservations/([^/]+)", One, own),
                (rf"{API}/me", Me, own),
                (rf"{API}/users/([^/]+)/ssh-keys", Keys, own),
                ("/control", Control, own),
            ],
        )
        host = sshd.setup(self.serverapp, service)
        self.serverapp.web_app.settings["gpudev_ssh"] = host
        self.host = host

    async def stop_extension(self) -> None:
        await self.host.close()


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "tests.ssh.child", "app": Extension}]


def main(port: int, token: str) -> None:
    ServerApp.launch_instance(
        argv=[
            f"--port={port}",
            "--ip=127.0.0.1",
            "--no-browser",
            "--allow-root",
            f"--ServerApp.base_url={os.environ['SSH_TEST_BASE']}/",
            f"--IdentityProvider.token={token}",
            "--ServerApp.port_retries=0",
            "--ServerApp.jpserver_extensions=tests.ssh.child=True",
            "--ServerApp.jpserver_extensions=jupyter_server_proxy=True",
            "--ServerApp.jpserver_extensions=gpudev_lab=False",
            "--ServerApp.jpserver_extensions=jupyterlab=False",
            "--ServerApp.allow_remote_access=True",
            f"--ServerApp.keyfile={os.environ.get('SSH_TEST_KEY', '')}",
            f"--ServerApp.certfile={os.environ.get('SSH_TEST_CERT', '')}",
        ]
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

"""Every call that changes something, from the route table: its answer is lost, or the service dies
before it gives one; asked for once more with the same key it has had its effect once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from sqlalchemy import select

from gpudev_service.api.route import Access, Call, Route
from gpudev_service.api.routes import ROUTES
from gpudev_service.settings import IdleRule, Policy
from gpudev_service.store.engine import Store
from gpudev_service.store.models import Base, IdempotencyRow
from tests.fixtures.hub import ADMIN, RunningHub

from .matrix import GUEST, SSH_KEY, Matrix
from .site import Site, running

pytestmark = pytest.mark.hub

MUTATING = [route for route in ROUTES if route.mutating]
#: Without a rule for idle leases none can be kept. Nothing is idle within a test.
POLICY = Policy(
    default=Policy().default.model_copy(update={"idle": IdleRule(after_minutes=24 * 60)})
)
#: What changes nothing that is stored: it asks, hands out what is good once, or tells those who
#: listen just now.
STORES_NOTHING = {
    "plan_reservation",
    "enter_by_ssh",
    "redeem_ssh_ticket",
    "redeem_cli_login",
}
#: Whoever closes what is closed already has closed it now; what is told of a server was told last.
_SINCE = re.compile(r"'(since|idle_\w+|activity_\w+)': datetime\.datetime\([^)]*\)|'version': \d+")
Rows = dict[str, list[str]]


def dying(route: Route) -> Route:
    """The route of a service that is killed when it has done the work."""

    async def operation(call: Call[Any, Any]) -> Any:
        await route.operation(call)
        raise RuntimeError("the service was killed here")

    return dataclasses.replace(route, operation=operation)


@dataclass
class Repeats:
    """Ada's things at a service, and calls about them."""

    hub: RunningHub
    site: Site
    store: Store
    matrix: Matrix
    owner: str
    number: int = 0

    async def prepare(self, route: Route) -> tuple[str, str, Any]:
        """Path, token and body of a call that can be done."""
        self.number += 1
        path, token = route.path, self.owner
        disk = f"made-{self.number}"
        await self._made("POST", "/disks", {"name": disk})
        if "{id}" in path:
            lease = await self._lease(disk, started=route.name != "report_server")
            path = path.replace("{id}", lease)
            if route.access is Access.LAB:
                token = self.hub.token("ada", [f"custom:gpudev:lab!server=ada/{lease}"])
        if route.name == "restore_disk":
            await self._made("DELETE", f"/disks/{disk}")
        if route.access is Access.ADMIN:
            token = self.hub.user(ADMIN)
        if route.access is Access.SPAWNER:
            token = self.hub.spawner_token
        user = "ada" if path.startswith("/users") else GUEST
        if route.name == "remove_collaborator":
            await self._made("PUT", path.format(user=GUEST), {"role": "view"})
        name = "t4-small" if path.startswith("/gpu-types") else disk
        path = path.format(name=name, node="cpu-1", user=user)
        if route.name in {"add_ssh_keys", "remove_ssh_key"}:
            kept = [] if route.method == "POST" else [f"{SSH_KEY} of a test"]
            keys = await self._made("PUT", "/users/ada/ssh-keys", {"keys": kept})
            path += "".join(f"?fingerprint={quote(key['fingerprint'])}" for key in keys["items"])
        sent = self.matrix.body(route, "ada")
        if route.name == "restore_disk":
            sent = {}
        return path, token, sent

    async def _lease(self, disk: str, *, started: bool) -> str:
        gpu_type = ("t4", "h100")[self.number % 2]
        asked = {"gpu_type": gpu_type, "gpus": 1, "hours": 1, "disk": disk}
        made = await self._made("POST", "/reservations", asked)
        if started:
            said = {"status": "running"}
            path = f"/reservations/{made['id']}/server"
            await self._made("PUT", path, said, self.hub.spawner_token)
        return str(made["id"])

    async def _made(
        self, method: str, path: str, sent: Any = None, token: str | None = None
    ) -> Any:
        answer = await self.site.call(method, path, token or self.owner, sent)
        assert answer.status_code < 300, (method, path, answer.text)
        return answer.json()

    async def rows(self, *sites: Site) -> Rows:
        """All that is stored but the keys, once everything is done."""
        for site in sites or (self.site,):
            await site.ctx.background.settle()
        found: Rows = {}
        async with self.store.reading() as session:
            for table in Base.metadata.sorted_tables:
                if table is not IdempotencyRow.__table__:
                    rows = await session.execute(select(table))
                    found[table.name] = sorted(_SINCE.sub("", str(row._asdict())) for row in rows)
        return found


async def cut(base: str, method: str, path: str, token: str, sent: Any, key: str) -> None:
    """A call whose line is cut when its answer begins to come."""
    address = urlsplit(f"{base}/api/v1{path}")
    raw = b"" if sent is None else json.dumps(sent, separators=(",", ":")).encode()
    target = address.path + (f"?{address.query}" if address.query else "")
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {address.netloc}",
        f"Authorization: token {token}",
        f"Idempotency-Key: {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(raw)}",
    ]
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + raw)
    await reader.readexactly(1)
    writer.transport.abort()


def different(before: Rows, after: Rows) -> list[str]:
    """The rows of which one of the two knows nothing."""
    return [
        f"{table}: {row}"
        for table in before
        for row in sorted(set(before[table]) ^ set(after[table]))
    ]


@pytest.fixture
def owner(running_hub: RunningHub) -> str:
    running_hub.user(GUEST)
    return running_hub.user("ada", "lab")


@pytest.mark.parametrize("how", ["the answer is lost", "the service is killed"])
async def test_every_call_has_its_effect_once(
    running_hub: RunningHub, store: Store, tmp_path: Path, owner: str, how: str
) -> None:
    killed: Sequence[Route] = tuple(dying(one) if one.mutating else one for one in ROUTES)
    wrong: dict[str, Any] = {}
    async with (
        running(running_hub, store, tmp_path, policy=POLICY) as site,
        running(running_hub, store, tmp_path, routes=killed, policy=POLICY) as other,
    ):
        repeats = Repeats(
            running_hub, site, store, Matrix(running_hub, site.base, site.http), owner
        )
        for route in MUTATING:
            path, token, sent = await repeats.prepare(route)
            key = f"key-of-{route.name}-{repeats.number}"
            before = await repeats.rows()
            if how == "the answer is lost":
                await cut(site.base, route.method, path, token, sent, key)
            else:
                died = await other.call(route.method, path, token, sent, {"Idempotency-Key": key})
                if died.status_code != 500 and not route.secret:
                    wrong[route.name] = died.text
            first = await repeats.rows(site, other)
            answers = [
                await site.call(route.method, path, token, sent, {"Idempotency-Key": key})
                for _ in range(2)
            ]
            second = await repeats.rows()
            if bool(different(before, first)) == (route.name in STORES_NOTHING):
                wrong[f"{route.name} does"] = different(before, first)
            if more := different(first, second):
                wrong[f"{route.name} once more"] = more
            if not route.secret:
                said = [(one.status_code, one.content) for one in answers]
                if said[0] != said[1] or said[0][0] != route.status:
                    wrong[f"{route.name} says"] = said
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())

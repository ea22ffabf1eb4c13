"""Every route as every role: who may, who may not, and that a refusal tells nothing (R10)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import httpx
import pytest

from gpudev_service.api.route import Access
from gpudev_service.api.routes import ROUTES
from gpudev_service.store.engine import Store
from tests.fixtures.hub import RunningHub

from .conformity import complaints
from .matrix import OWNERS, Matrix, leaks
from .rules import ROLES
from .site import running

pytestmark = pytest.mark.hub


@pytest.mark.slow
async def test_every_route_as_every_role(
    running_hub: RunningHub, capsys: pytest.CaptureFixture[str]
) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        matrix = Matrix(running_hub, running_hub.service, http)
        await matrix.prepare()
        cells = await matrix.run(ROUTES)
        await _tidy(matrix)
    wrong = [str(cell) for cell in cells if not cell.right]
    with capsys.disabled():
        print(f"\nR10 cells={len(cells)} wrong={len(wrong)} leaks={len(leaks(cells))}")  # noqa: T201
    assert len(cells) == len(ROUTES) * len(ROLES) * len(OWNERS)
    assert wrong == []
    assert leaks(cells) == []
    assert [c for cell in cells for c in complaints(cell.route, cell.status, cell.body)] == []


async def test_some_routes_as_every_role(running_hub: RunningHub) -> None:
    """The same for a few routes, one of each kind, which takes seconds."""
    chosen = {"enter_by_ssh", "submit_reservation", "drain_node", "list_disks"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        matrix = Matrix(running_hub, running_hub.service, http)
        await matrix.prepare()
        cells = await matrix.run(route for route in ROUTES if route.name in chosen)
        await _tidy(matrix)
    assert [str(cell) for cell in cells if not cell.right] == []
    assert leaks(cells) == []


async def _tidy(matrix: Matrix) -> None:
    for path in ("/gpu-types/t4-small/maintenance", "/cluster/nodes/cpu-1/drain"):
        await matrix.call("DELETE", path, matrix.tokens["admin"])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("name", "access"),
    [
        ("cancel_reservation", Access.READ),
        ("show_reservation", Access.PUBLIC),
        ("reservation_history", Access.READ),
        ("report_server", Access.RESERVATION_WRITE),
        ("enter_by_ssh", Access.RESERVATION_READ),
        ("invite_collaborator", Access.RESERVATION_READ),
        ("remove_collaborator", Access.RESERVATION_READ),
        ("lab", Access.RESERVATION_READ),
        ("redeem_ssh_ticket", Access.RESERVATION_READ),
        ("replace_ssh_keys", Access.READ),
        ("list_ssh_keys", Access.READ),
        ("drain_node", Access.READ),
        ("change_disk", Access.DISK_READ),
        ("me", Access.PUBLIC),
    ],
)
async def test_a_route_that_is_open_too_wide_is_found(
    name: str, access: Access, running_hub: RunningHub, store: Store, tmp_path: Path
) -> None:
    """The planted hole: the same cells at a service of which one route's access is loosened."""
    loosened = next(route for route in ROUTES if route.name == name)
    loosened = dataclasses.replace(loosened, access=access)
    routes = tuple(loosened if route.name == name else route for route in ROUTES)
    async with (
        running(running_hub, store, tmp_path, routes=routes) as site,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        matrix = Matrix(running_hub, site.base, http)
        await matrix.prepare()
        cells = await matrix.run([loosened])
    assert [str(cell) for cell in cells if not cell.right]

"""Every route, page and call of the panel as every role, and what a refusal tells.

The routes and pages are those that the routers have. The ten roles (anonymous, stranger,
collaborator, removed one, owner, group admin, filtered scope, expired, revoked, admin) are in the
cells, with finer ones beside them; each on things of its own, of somebody else, and that are not
there. Answers to "not yours" and to "not there" are compared with bodies and headers.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter

import httpx

from benchmarks.campaign import ROOT, SMALL, machine, verdict
from benchmarks.ssh_peers import here
from gpudev_service.api.routes import ROUTES
from tests.api.matrix import OWNERS, Cell, Matrix, leaks
from tests.api.rules import ROLES
from tests.fixtures.hub import RunningHub
from tests.pages.matrix import PageMatrix, forgetful, pages

#: The roles that the row names, by those of the matrix which are of each.
TEN = {
    "anonymous": ("anonymous",),
    "stranger": ("stranger",),
    "collaborator": ("collaborator (use)", "collaborator (view)"),
    "removed one": ("removed collaborator",),
    "owner": ("owner",),
    "group admin": ("group admin",),
    "filtered scope": ("reader", "no scope", "server's own token", "owner's login in the server"),
    "expired": ("expired",),
    "revoked": ("revoked",),
    "admin": ("admin",),
}
#: The panel's calls as everybody, at servers of a Hub of its own; and that none is left out.
PANEL = (
    "tests/lab/test_endpoints.py::test_every_call_is_asked_of_everybody[hub6]",
    "tests/lab/test_endpoints.py::test_the_table_above_has_every_call",
    "tests/lab/test_endpoints.py::test_every_handler_of_the_extension_wants_a_person",
)
_PANEL_SAID = {None: "not asked in this size", True: "as they should", False: "NOT as they should"}


async def ask(hub: RunningHub) -> list[Cell]:
    """Every cell of the API, then of the pages."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        matrix = Matrix(hub, hub.service, http)
        await matrix.prepare()
        cells = await matrix.run(ROUTES)
    async with forgetful() as http:
        shown = PageMatrix(hub, hub.service, http)
        await shown.prepare()
        cells += await shown.run_pages()
    return cells


def panel() -> bool:
    """Whether the panel's calls answer each role as they should."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", *PANEL], cwd=ROOT, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout[-3000:])
    return done.returncode == 0


def main() -> int:
    here()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    begin = time.monotonic()
    hub = RunningHub()
    try:
        hub.start()
        cells = asyncio.run(ask(hub))
    finally:
        hub.remove()
    answered = None if SMALL else panel()
    wrong, told = [str(cell) for cell in cells if not cell.right], leaks(cells)
    wanted = (len(ROUTES) + len(list(pages()))) * len(ROLES) * len(OWNERS)
    for line in (*wrong[:20], *told[:20]):
        print(line)
    of = Counter(cell.role for cell in cells)
    shown = {name: sum(of[role] for role in roles) for name, roles in TEN.items()}
    print(
        f"{len(ROUTES)} routes and {len(list(pages()))} methods of pages, {len(ROLES)} roles, in"
        f" {time.monotonic() - begin:.0f} s; cells by role:"
        f" {', '.join(f'{name} {count}' for name, count in shown.items())}; the panel's calls"
        f" {_PANEL_SAID[answered]}"
    )
    sound = not (wrong or told) and answered is not False and all(shown.values())
    full = len(cells) == wanted and answered is not None
    print(
        f"R10 cells={len(cells)}/{wanted} wrong={len(wrong)} differences={len(told)}"
        f" roles={len(ROLES)} goal 100% asserted, 0 wrong, 0 differences, 10 roles"
        f" {verdict(good=sound, full=full)}"
    )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every page as every role at a real Hub (R10)."""

from __future__ import annotations

import pytest

from tests.api.matrix import OWNERS, leaks
from tests.api.rules import ROLES
from tests.fixtures.hub import RunningHub

from .matrix import PageMatrix, about, forgetful, pages

pytestmark = pytest.mark.hub


@pytest.mark.slow
async def test_every_page_as_every_role(running_hub: RunningHub) -> None:
    async with forgetful() as http:
        matrix = PageMatrix(running_hub, running_hub.service, http)
        await matrix.prepare()
        cells = await matrix.run_pages()
        for path in ("/gpu-types/t4-small/maintenance", "/cluster/nodes/cpu-1/drain"):
            await matrix.call("DELETE", path, matrix.tokens["admin"])
    assert [str(cell) for cell in cells if not cell.right] == []
    assert leaks(cells) == []
    assert len(cells) == len(list(pages())) * len(ROLES) * len(OWNERS)


def test_nobody_but_admins_has_what_is_for_admins() -> None:
    assert {about(page) for page in pages() if page.path.startswith("admin")} == {"administrate"}
    assert len(list(pages())) > 40

"""What callers are told of a database that is damaged, or gone, under the running service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.fixtures import damage
from tests.fixtures.hub import RunningHub

from .site import Site

pytestmark = pytest.mark.hub


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'gpudev.sqlite'}"


@pytest.mark.parametrize("strike", [damage.overwrite, damage.replace])
async def test_every_call_says_that_an_administrator_is_needed(
    running_hub: RunningHub, site: Site, database_url: str, strike: Callable[[Path], None]
) -> None:
    path, tom = Path(make_url(database_url).database or ""), running_hub.user("tom")
    wish = {"gpu_type": "t4", "gpus": 1, "hours": 1}
    made = await site.call("POST", "/reservations", tom, wish)
    assert made.status_code == 201, made.text
    damage.empty_journal(path)
    strike(path)
    for call in (
        ("GET", "/reservations", tom),
        ("POST", "/reservations", tom, wish),
        ("POST", "/reservations", tom, wish, {"Idempotency-Key": "only-once"}),
        ("GET", f"/reservations/{made.json()['id']}", tom),
        ("DELETE", f"/reservations/{made.json()['id']}", tom),
    ):
        answer = await site.call(*call)
        assert answer.status_code == 503, (call, answer.text)
        assert "until an administrator has put it right" in answer.json()["error"]["message"]
    health = await site.call("GET", "/health")
    assert (health.status_code, health.json()["database"]) == (503, False)
    assert (await site.call("GET", "/health/live")).status_code == 200

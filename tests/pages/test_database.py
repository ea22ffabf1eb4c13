"""What pages say while the database cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from gpudev_service.store.errors import OutcomeUnknown, StoreBroken, StoreUnavailable
from tests.fixtures import damage

from .conftest import Site


async def test_of_one_that_is_damaged(site: Site, database_url: str) -> None:
    ada = await site.log_in("ada")
    path = Path(make_url(database_url).database or "")
    damage.empty_journal(path)
    damage.overwrite(path)
    page = await ada.open()
    assert page.status == 503
    assert "until an administrator has put it right" in page.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreBroken("its disk is full"), "until an administrator has put it right"),
        (OutcomeUnknown("away"), "it may have been done"),
        (StoreUnavailable("away"), "away for a moment"),
    ],
)
async def test_each_failure_says_what_can_be_done(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, said: str
) -> None:
    ada = await site.log_in("ada")

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(site.world.ctx.store, "reading", fails)
    page = await ada.open()
    assert page.status == 503
    assert said in page.text

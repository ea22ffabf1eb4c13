"""Calls that are repeated, reordered and cut on their way have their effect once; `make r6` makes
many of them."""

import asyncio
from collections.abc import Iterator

import pytest

from benchmarks import r6
from tests.fixtures.hub import RunningHub

from .database import Database

pytestmark = [pytest.mark.hub, pytest.mark.slow]


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(service_config=r6.CONFIG)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def test_every_call_has_its_effect_once(hub: RunningHub) -> None:
    clients, faulty = asyncio.run(r6.call_all(hub, 64, seed=7))
    assert faulty.counts["late"]
    assert faulty.counts["answer lost"]
    database = Database(hub)
    assert r6.doubles(database, clients) == []
    database.close()

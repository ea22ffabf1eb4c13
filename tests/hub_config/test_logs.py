"""What a stranger can write into the Hub's log."""

from __future__ import annotations

import logging

import httpx
import pytest

from gpudev_hub_config.logs import MOST, Shortened
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub

LONG = "x" * 3000
#: One that has nothing there, one that is sent to the login, and one that is told no.
PATHS = (f"/user/{LONG}/lab", f"/hub/spawn/{LONG}", f"/hub/api/users/{LONG}")


def shortened(message: str, *args: object, level: int = logging.WARNING) -> str:
    record = logging.LogRecord("tornado.access", level, "web.py", 1, message, args, None)
    assert Shortened().filter(record), "nothing is kept from the log"
    return record.getMessage()


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    said = shortened("%s", f"404 GET /{LONG} (@192.0.2.1) 1.20ms")
    assert said.startswith("404 GET /xxx")
    assert said.endswith("xxx (@192.0.2.1) 1.20ms")
    assert "[2629 characters left out]" in said
    assert len(said) < MOST + 40


def test_a_short_one_and_an_error_are_as_they_were() -> None:
    assert shortened("%s of 100%%", "a" * (MOST - 8)) == "a" * (MOST - 8) + " of 100%"
    assert shortened("%s", LONG, level=logging.ERROR) == LONG


def _written(hub: RunningHub, stranger: httpx.Client, path: str) -> str:
    """What a request makes the Hub write, which answers first."""
    before = len(hub.logs())
    assert stranger.get(path).status_code in {302, 403, 404}
    until(lambda: "127.0.0.1" in hub.logs()[before:], "it says who asked")
    return hub.logs()[before:]


@pytest.mark.hub
def test_a_stranger_writes_less_than_a_kilobyte_for_each_request() -> None:
    with RunningHub() as hub, httpx.Client(base_url=hub.url, trust_env=False) as stranger:
        for path in PATHS:
            assert len(_written(hub, stranger, path).encode()) < 1024

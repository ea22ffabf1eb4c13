"""Other machines' clocks, as their answers tell of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpudev_service import server
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.leading import lead_of
from gpudev_service.other_clocks import OtherClocks
from gpudev_service.store import address
from tests.kube.moody import moody_server, settings_for

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Counted:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def count() -> Counted:
    return Counted()


def test_nobody_has_said_anything_yet(count: Counted) -> None:
    assert OtherClocks(count).difference(NOON) is None


@pytest.mark.parametrize(
    ("off", "told"),
    [
        (timedelta(hours=5), "the service's clock is 5 h behind the Hub's"),
        (timedelta(days=-31), "the service's clock is 31 days ahead of the Hub's"),
    ],
    ids=str,
)
def test_a_clock_that_differs_is_told_as_long_as_it_does(
    count: Counted, off: timedelta, told: str
) -> None:
    clocks = OtherClocks(count)
    clocks.heard("the Hub's", NOON + off, count.seconds)
    clocks.heard("the database's", NOON, count.seconds)
    # Seconds of a header are whole: a clock that is ahead seems a second less so.
    late = timedelta(seconds=1 if off < timedelta(0) else 0)
    assert str(clocks.difference(NOON + late)) == told
    count.seconds += 3600
    later = NOON + timedelta(hours=1)
    assert str(clocks.difference(later + late)) == told, "it goes on meanwhile"
    clocks.heard("the Hub's", NOON + timedelta(hours=1), count.seconds)
    assert clocks.difference(NOON + timedelta(hours=1)) is None


def test_what_may_come_from_a_slow_answer_is_no_difference(count: Counted) -> None:
    """The Hub's time may be that of the question or of the answer."""
    clocks = OtherClocks(count)
    asked = count.seconds
    count.seconds += 300
    clocks.heard("the Hub's", NOON, asked)
    assert clocks.difference(NOON) is None
    assert clocks.difference(NOON + timedelta(minutes=5)) is None
    assert clocks.difference(NOON + timedelta(minutes=7)) is not None
    assert clocks.difference(NOON - timedelta(minutes=2)) is not None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "yesterday",
        "Sun, 01 Mar 2026 12:00:00",
        "Sun, 99 Mar 2026 12:00:00 GMT",
        "Sun, 01 Mar 99999999999 12:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2300",
    ],
)
def test_a_header_without_sense_says_nothing(count: Counted, header: str | None) -> None:
    clocks = OtherClocks(count)
    clocks.heard_date("the Hub's", header, count.seconds)
    assert clocks.difference(NOON + timedelta(days=1)) is None


def test_the_header_of_an_answer(count: Counted) -> None:
    clocks = OtherClocks(count)
    clocks.heard_date("the Hub's", "Sun, 01 Mar 2026 12:00:00 GMT", count.seconds)
    assert clocks.difference(NOON) is None
    assert clocks.difference(NOON + timedelta(hours=1)) is not None


@pytest.mark.postgres
async def test_whoever_answers_the_service_is_heard(
    postgres_database_url: str, tmp_path: Path
) -> None:
    """Of the Hub, the API server and the database each; the same server stands in for the first
    two and knows nothing of what it is asked, but has a clock all the same."""
    kinds = server.Kinds(fleet="kubernetes", servers="kubernetes", disks="directories")
    lead = lead_of(address.parse(postgres_database_url), "http://here", 30)
    async with moody_server(tmp_path) as (_, kube):
        url = str(kube.configuration.host)
        settings, hub = settings_for(tmp_path, url), server.HubAccess(url, "t", "/")
        options = settings.kubernetes.model_copy(update={"shared_storage_class": "shared"})
        settings = settings.model_copy(update={"kubernetes": options})
        async with server.context(settings, kinds, postgres_database_url, hub, lead) as ctx:
            clocks = ctx.other_clocks
            assert await lead.take()
            assert await ctx.hub.server("ada", "x") is None
            assert ctx.shared is not None
            with pytest.raises((KubeAway, KubeRefused)):
                await ctx.shared.reservations()
            assert clocks.heard_from == {"the database's", "the Hub's", "the API server's"}
            assert clocks.difference(ctx.clock.now()) is None
            assert clocks.difference(ctx.clock.now() + timedelta(hours=1)) is not None
        await lead.close()

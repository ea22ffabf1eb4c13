"""An early end waits for a server that listens, and for no other."""

from __future__ import annotations

import asyncio

from gpudev_service.labs import Labs

FOREVER = 3600.0


async def test_nobody_is_waited_for_where_nobody_listens() -> None:
    labs = Labs()
    assert await labs.wait_closed("r1", FOREVER)
    labs.closed("r1")
    assert not labs._closed


async def test_a_server_that_says_so_lets_the_end_go_on() -> None:
    labs = Labs()
    with labs.listening("r1"):
        waiting = asyncio.create_task(labs.wait_closed("r1", FOREVER))
        await asyncio.sleep(0)
        labs.closed("r2")
        assert not waiting.done()
        labs.closed("r1")
        assert await waiting
    assert not labs._closed


async def test_a_server_may_be_quicker_than_the_question() -> None:
    labs = Labs()
    with labs.listening("r1"):
        labs.closed("r1")
        assert await labs.wait_closed("r1", FOREVER)


async def test_a_server_that_is_gone_is_not_waited_for() -> None:
    labs = Labs()
    with labs.listening("r1"):
        with labs.listening("r1"):
            waiting = asyncio.create_task(labs.wait_closed("r1", FOREVER))
            await asyncio.sleep(0)
        assert labs.listens("r1")
        assert not waiting.done()
    assert await waiting
    assert not labs.listens("r1")


async def test_a_server_that_says_nothing_is_waited_for_so_long() -> None:
    labs = Labs()
    with labs.listening("r1"):
        assert not await labs.wait_closed("r1", 0.01)

"""Counts, readiness, lists and their pages, events that were missed; cursors that nobody made."""

from datetime import timedelta
from typing import Any

import pytest

from gpudev_client.states import State
from gpudev_service.errors import Refusal
from gpudev_service.operations import cursors, reservations, status
from gpudev_service.store.engine import Store
from tests.fixtures.world import START, World


async def test_counts_by_state_and_what_is_overdue(world: World) -> None:
    await world.running(await world.reserve("ada"))
    await world.reserve("grace")
    await world.reserve("linus", "t4")
    got = await status.counts(world.ctx)
    assert got.states == {State.ACTIVE: 1, State.QUEUED: 1, State.PREPARING: 1}
    assert got.overdue == 0
    world.clock.pass_time(hours=1, seconds=4)
    assert (await status.counts(world.ctx)).overdue == 0
    world.clock.pass_time(seconds=2)
    assert (await status.counts(world.ctx)).overdue == 2


async def test_a_database_that_is_not_there_does_not_answer(
    world: World, unused_tcp_port: int
) -> None:
    assert await status.database_answers(world.ctx)
    away = Store(f"postgresql://nobody:none@127.0.0.1:{unused_tcp_port}/none", patience=0.2)
    world.ctx.store = away
    assert not await status.database_answers(world.ctx)
    await away.close()


async def test_what_was_missed_comes_in_order_and_only_what_may_be_seen(world: World) -> None:
    assert await status.last_event(world.ctx) == 0
    first = await world.reserve("ada")
    seen = await status.last_event(world.ctx)
    await world.running(first)
    second = await world.reserve("grace")
    events = await status.missed(world.ctx, seen, lambda owner: True)
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert {event.reservation.id for event in events} == {first.id, second.id}
    mine = await status.missed(world.ctx, 0, lambda owner: owner.user == "ada")
    assert {event.reservation.id for event in mine} == {first.id}
    one = await status.missed(world.ctx, 0, lambda owner: True, second.id)
    assert {event.reservation.id for event in one} == {second.id}
    assert await status.last_event(world.ctx, first.id) < await status.last_event(world.ctx)


async def test_too_much_to_send_again_is_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "REPLAY_MAX", 2)
    await world.running(await world.reserve())
    assert await status.missed(world.ctx, 0, lambda owner: True) == []
    assert len(await status.missed(world.ctx, 1, lambda owner: True)) == 2


def test_cursors_come_back_as_they_were() -> None:
    moment = START + timedelta(microseconds=7)
    assert cursors.moment_and_id(cursors.of_moment_and_id(moment, "abc")) == (moment, "abc")
    assert cursors.number(cursors.of_number(17)) == 17


@pytest.mark.parametrize(
    "bad", ["", "?", "e30", "x" * 999, "WzFd", "WyIxIl0", "[" * 40, "WyJ4IiwieSJd"]
)
def test_cursors_that_we_did_not_make_are_refused(bad: str) -> None:
    """ "WzFd" is a number: right for one kind of list, not for another."""
    with pytest.raises(Refusal, match="not one of ours"):
        cursors.moment_and_id(bad)
    if bad != "WzFd":
        with pytest.raises(Refusal, match="not one of ours"):
            cursors.number(bad)


def test_a_moment_without_a_zone_and_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(Refusal):
        cursors.moment_and_id(cursors._pack(["2026-03-01T12:00:00", "abc"]))
    for number in (-1, 2**63):
        with pytest.raises(Refusal):
            cursors.number(cursors.of_number(number))


async def test_history_is_read_page_by_page(world: World) -> None:
    got = await world.running(await world.reserve())
    whole = await reservations.history(world.ctx, got.id, 50, None)
    said, cursor = [], None
    while True:
        page = await reservations.history(world.ctx, got.id, 1, cursor)
        said += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert said == whole.items
    with pytest.raises(Refusal, match="no such reservation"):
        await reservations.history(world.ctx, "zzzzzzzzzzzzzzzz", 1, None)


async def test_who_owns_what(world: World) -> None:
    got = await world.reserve("ada", groups=("lab",), server_name="x")
    owner = await reservations.owner_of(world.ctx, got.id)
    assert owner is not None
    assert (owner.user, owner.groups, owner.server_name) == ("ada", ("lab",), "x")
    assert await reservations.owner_of(world.ctx, "zzzzzzzzzzzzzzzz") is None
    assert await reservations.owner_of(world.ctx, "../../etc/passwd") is None
    with pytest.raises(Refusal) as refused:
        await world.reserve("ada", "t4", server_name="x")
    assert refused.value.code == "server_in_use"
    assert refused.value.accepted == {"reservation": got.id}


async def test_lists_by_state_type_server_and_group(world: World) -> None:
    mine = await world.reserve("ada", groups=("lab",), server_name="x")
    await world.reserve("grace", "t4")
    chosen = reservations.ReservationFilter
    for narrow in (
        chosen(servers=frozenset({("ada", "x")})),
        chosen(users=None, of="ada"),
        chosen(users=None, gpu_type="t4-small"),
        chosen(groups=frozenset({"lab"})),
    ):
        page = await reservations.listing(world.ctx, narrow, 10, None)
        assert [r.id for r in page.items] == [mine.id]
    states = chosen(users=None, states=frozenset({State.ACTIVE}))
    assert (await reservations.listing(world.ctx, states, 10, None)).items == []
    assert (await reservations.listing(world.ctx, chosen(), 10, None)).items == []


async def test_a_list_has_another_page_only_where_there_is_more(world: World) -> None:
    made = [(await world.reserve("ada", "h100", gpus=1)).id for _ in range(3)]
    newest = sorted(made, reverse=True)  # they came at the same moment
    chosen = reservations.ReservationFilter(users=frozenset({"ada"}))
    page = await reservations.listing(world.ctx, chosen, 3, None)
    assert ([one.id for one in page.items], page.next_cursor) == (newest, None)
    page = await reservations.listing(world.ctx, chosen, 2, None)
    assert [one.id for one in page.items] == newest[:2]
    assert page.next_cursor is not None
    page = await reservations.listing(world.ctx, chosen, 2, page.next_cursor)
    assert ([one.id for one in page.items], page.next_cursor) == (newest[2:], None)


async def test_a_list_is_narrowed_to_exactly_what_is_named(world: World) -> None:
    made = {
        (user, gpu_type): (await world.reserve(user, gpu_type, server_name=server)).id
        for user, gpu_type, server in (
            ("ada", "t4", "lab"),
            ("grace", "h100", "jab"),
            ("grace", "t4", "lab"),
            ("grace", "t4-small", "nab"),
            ("linus", "t4", "lab"),
        )
    }

    async def found(**values: Any) -> set[tuple[str, str]]:
        chosen = reservations.ReservationFilter(**values)
        page = await reservations.listing(world.ctx, chosen, 50, None)
        return {(one.user, one.gpu_type) for one in page.items}

    assert await found(users=None) == made.keys()
    assert await found(users=None, gpu_type="t4") == {key for key in made if key[1] == "t4"}
    assert await found(users=None, of="grace") == {key for key in made if key[0] == "grace"}
    assert await found(servers=frozenset({("grace", "lab")})) == {("grace", "t4")}
    assert await found(users=None, states=frozenset({State.QUEUED})) == set()

"""SSH keys, the way in, and what a reservation's server says; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from gpudev_client import limits
from gpudev_client.models import ClosingReport, CollaboratorRequest, Reservation, SshHostReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.operations import keys, lab, reservations, sharing
from gpudev_service.store.models import SshHostRow
from tests.fixtures.world import START, World

ADA = Actor("ada")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHE7456cV84hOsKI4dUVCCKoH+IiQ5BPbuHX+u6c51dl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
HOST = SshHostReport(host_keys=[f"{OTHER} root@node"], login="jovyan", home="/home/jovyan")
UNTIL = START + timedelta(minutes=1)


async def lease(world: World, **values: object) -> Reservation:
    return await world.running(await world.reserve(**values))  # type: ignore[arg-type]


async def add_key(world: World, user: str = "ada", key: str = KEY) -> None:
    await keys.replace(world.ctx, user, [f"{key} of {user}"], Actor(user))


async def invite(world: World, to: Reservation, user: str, role: str) -> None:
    request = CollaboratorRequest.model_validate({"role": role})
    await sharing.invite(world.ctx, to.id, user, request, ADA)


async def refused(world: World, of: Reservation, user: str = "ada") -> tuple[str, str]:
    with pytest.raises(Refusal) as raised:
        await lab.way_in(world.ctx, of.id, user, UNTIL)
    return raised.value.code, raised.value.message


async def test_keys_are_replaced_as_a_whole(world: World) -> None:
    made = await keys.replace(world.ctx, "ada", [f"{KEY} laptop", OTHER], ADA)
    assert {(k.key, k.comment) for k in made.items} == {(KEY, "laptop"), (OTHER, "")}
    world.clock.pass_time(days=1)
    kept = await keys.replace(world.ctx, "ada", [f"{KEY} desk"], ADA)
    assert [(k.key, k.comment, k.added_at) for k in kept.items] == [(KEY, "desk", START)]
    assert await keys.listing(world.ctx, "ada") == kept
    assert (await keys.listing(world.ctx, "grace")).items == []


async def test_keys_are_added_and_removed_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.add(world.ctx, "ada", [f"{KEY} laptop"], ADA)
    made = await keys.add(world.ctx, "ada", [f"{KEY} desk", OTHER], ADA)
    assert {(k.key, k.comment) for k in made.items} == {(KEY, "desk"), (OTHER, "")}
    monkeypatch.setattr(limits, "SSH_KEYS_MAX", 2)
    third = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
    with pytest.raises(Refusal) as raised:
        await keys.add(world.ctx, "ada", [third], ADA)
    assert (raised.value.code, raised.value.accepted) == ("quota", {"max": 2})
    first = next(k.fingerprint for k in made.items if k.key == KEY)
    for _ in range(2):
        left = await keys.remove(world.ctx, "ada", first, ADA)
        assert [k.key for k in left.items] == [OTHER]


async def test_one_bad_key_changes_nothing(world: World) -> None:
    await add_key(world)
    with pytest.raises(Refusal, match="options before the key"):
        await keys.replace(world.ctx, "ada", [OTHER, f'command="id" {KEY}'], ADA)
    assert [k.key for k in (await keys.listing(world.ctx, "ada")).items] == [KEY]


async def test_servers_whose_doors_the_keys_open_are_told(world: World) -> None:
    own = await lease(world, user="grace", gpu_type="t4")
    used, seen = await lease(world, gpu_type="t4"), await lease(world, gpu_type="t4")
    waiting = await world.reserve("grace", "t4", starts_at=START + timedelta(days=1))
    await invite(world, used, "grace", "use")
    await invite(world, seen, "grace", "view")
    await add_key(world, "grace")
    told = [
        "grace changed their SSH keys." in await world.reasons(one)
        for one in (own, used, seen, waiting)
    ]
    assert told == [True, True, False, False]
    await add_key(world, "grace")
    assert (await world.reasons(used)).count("grace changed their SSH keys.") == 1


async def test_others_keys_do_not_fill_the_history_and_the_server_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_LINES_MAX", 3)
    got = await lease(world)
    await invite(world, got, "grace", "use")
    line = "grace changed their SSH keys."
    async with world.ctx.events.listen(lambda _: True) as listener:
        for written, minutes in ((1, 0), (1, 0.9), (2, 0.1), (3, 1), (3, 1), (3, 60)):
            world.clock.pass_time(minutes=minutes)
            for key in (KEY, OTHER):
                await add_key(world, "grace", key)
                event = await listener.next()
                assert (event.reservation.id, event.message) == (got.id, line)
            assert (await world.reasons(got)).count(line) == written
    await add_key(world)
    assert (await world.reasons(got))[-1] == "ada changed their SSH keys."


async def test_the_view_of_a_server(world: World) -> None:
    got = await lease(world, disk="work", create_disk=True)
    await invite(world, got, "grace", "use")
    await invite(world, got, "linus", "view")
    await add_key(world)
    await add_key(world, "grace", OTHER)
    await add_key(world, "linus")
    view = await lab.view(world.ctx, got.id)
    assert [(a.user, a.role, a.keys, a.owner) for a in view.access] == [
        ("ada", "use", [KEY], True),
        ("grace", "use", [OTHER], False),
        ("linus", "view", [], False),
    ]
    assert {a.until for a in view.access} == {START + timedelta(hours=1)}
    assert view.reservation.extension is not None
    assert view.disk is not None
    assert (view.disk.name, view.snapshots) == ("work", [])
    taken = await lab.snapshot(world.ctx, got.id, "now", ADA)
    await world.ctx.background.settle()
    view = await lab.view(world.ctx, got.id)
    assert [(s.id, s.state, s.note) for s in view.snapshots] == [(taken.id, "ready", "now")]


async def test_a_snapshot_needs_a_lease_with_a_disk(world: World) -> None:
    bare = await lease(world)
    with pytest.raises(Refusal, match="without a disk"):
        await lab.snapshot(world.ctx, bare.id, None, ADA)
    waiting = await world.reserve(disk="work", create_disk=True)
    with pytest.raises(Refusal, match="no lease runs"):
        await lab.snapshot(world.ctx, waiting.id, None, ADA)


async def test_the_way_in(world: World) -> None:
    got = await lease(world)
    code, message = await refused(world, got)
    assert code == "no_ssh_keys"
    assert "`gpu-dev ssh-keys add`" in message
    await add_key(world)
    assert (await refused(world, got))[0] == "server_not_ready"
    assert (await world.look(got)).ssh_host is None
    view = await lab.publish_host(world.ctx, got.id, HOST)
    assert view.ssh_host == f"gpudev-{got.id}"
    access = await lab.way_in(world.ctx, got.id, "ada", UNTIL)
    assert (access.login, access.home, access.host_keys) == ("jovyan", "/home/jovyan", [OTHER])
    assert access.url == f"http://hub.example/user/ada/{got.id}/gpudev/ssh"


async def test_a_server_without_ssh_is_not_waited_for(world: World) -> None:
    got = await lease(world)
    await add_key(world)
    why = "setpriv is not installed in this server."
    lacks = SshHostReport(unavailable=why)
    for _ in range(2):
        await lab.publish_host(world.ctx, got.id, lacks)
    code, message = await refused(world, got)
    assert code == "no_ssh"
    assert why in message
    assert (await world.look(got)).ssh_host is None
    # Mended, and broken again by what a restarted server has installed meanwhile.
    await lab.publish_host(world.ctx, got.id, HOST)
    assert (await lab.way_in(world.ctx, got.id, "ada", UNTIL)).login == "jovyan"
    await lab.publish_host(world.ctx, got.id, lacks)
    assert (await refused(world, got))[0] == "no_ssh"
    assert (await world.look(got)).ssh_host is None
    no = f"The server cannot be reached by SSH: {why}"
    said = [
        reason for reason in await world.reasons(got) if "SSH:" in reason or "by SSH." in reason
    ]
    assert said == [no, "The server can be reached by SSH.", no]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"login": "jovyan"},
        {"host_keys": [KEY]},
        {"unavailable": ""},
        {"unavailable": "two\nlines"},
        {"unavailable": "no sshd", "login": "jovyan", "host_keys": [KEY]},
    ],
)
def test_a_report_on_ssh_says_how_or_why_not(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SshHostReport.model_validate(said)


async def test_while_it_waits_the_refusal_says_until_when(world: World) -> None:
    await add_key(world)
    await lease(world, user="sam")
    waiting = await world.reserve()
    code, message = await refused(world, waiting)
    assert code == "wrong_state"
    assert "next in the queue, starts at 13:01 UTC at the latest (in 1 h 1 min)" in message
    booked = await world.reserve(starts_at=START + timedelta(days=1))
    assert "is booked" in (await refused(world, booked))[1]


async def test_when_it_is_over_the_refusal_says_since_when(world: World) -> None:
    await add_key(world)
    got = await lease(world)
    await reservations.cancel(world.ctx, got.id, ADA)
    assert await refused(world, got) == (
        "wrong_state",
        "The lease is ending; its server can no longer be entered.",
    )
    await world.sweep()
    world.clock.pass_time(hours=1)
    code, message = await refused(world, got)
    assert (code, message) == (
        "wrong_state",
        "The reservation ended 1 h ago, at 12:00 UTC.",
    )


async def test_a_ticket_holds_what_its_holder_is_now(world: World) -> None:
    got = await lease(world)
    await add_key(world, "grace", OTHER)
    await invite(world, got, "grace", "use")
    held = await lab.holder(world.ctx, got.id, "grace")
    assert (held.user, held.role, held.keys, held.owner) == ("grace", "use", [OTHER], False)
    assert (await lab.holder(world.ctx, got.id, "ada")).owner
    await invite(world, got, "grace", "view")
    for user in ("grace", "sam"):
        with pytest.raises(Refusal, match="no such ticket"):
            await lab.holder(world.ctx, got.id, user)
    await reservations.cancel(world.ctx, got.id, ADA)
    with pytest.raises(Refusal, match="no such ticket"):
        await lab.holder(world.ctx, got.id, "ada")


async def test_a_host_key_is_noted_once(world: World) -> None:
    got = await lease(world)
    for _ in range(2):
        await lab.publish_host(world.ctx, got.id, HOST)
    changed = HOST.model_copy(update={"host_keys": [KEY]})
    await lab.publish_host(world.ctx, got.id, changed)
    said = [reason for reason in await world.reasons(got) if "SSH" in reason]
    assert said == [
        "The server can be reached by SSH.",
        "The way in by SSH has changed: the host key.",
    ]
    bad = HOST.model_copy(update={"host_keys": ["* " + KEY]})
    with pytest.raises(Refusal) as raised:
        await lab.publish_host(world.ctx, got.id, bad)
    assert raised.value.field == "host_keys.0"


async def test_what_a_server_did_before_its_end_is_noted(world: World) -> None:
    got = await lease(world)
    said = ClosingReport(saved=2, unsaved=["a.ipynb", "b.py"], hook="ended with 0 after 3 s.")
    for _ in range(2):
        await lab.closing(world.ctx, got.id, said)
    (line,) = [r for r in await world.reasons(got) if r.startswith("Before")]
    assert line == (
        "Before the end 2 documents saved. Not saved: a.ipynb, b.py. Your hook: ended with 0 after "
        "3 s."
    )
    await lab.closing(world.ctx, got.id, ClosingReport(saved=0))
    assert (await world.reasons(got))[-1] == "Before the end there was nothing to save."


async def test_a_server_cannot_fill_the_history(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "_LINES_MAX", {"closing": 2, "server": 2})
    got = await lease(world)
    for number in range(2):
        await lab.closing(world.ctx, got.id, ClosingReport(saved=number))
    with pytest.raises(Refusal) as raised:
        await lab.closing(world.ctx, got.id, ClosingReport(saved=2))
    assert raised.value.code == "too_many_requests"
    # One kind takes no other's place.
    await lab.publish_host(world.ctx, got.id, HOST)
    assert "The server can be reached by SSH." in await world.reasons(got)


@pytest.mark.parametrize("early", [True, False])
async def test_what_filled_the_history_before_hides_no_end(
    world: World, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    monkeypatch.setattr(lab, "_LINES_MAX", {"closing": 2, "server": 2})
    got = await lease(world)
    for number in range(2):
        await lab.closing(world.ctx, got.id, ClosingReport(saved=number))
    world.clock.pass_time(seconds=60)
    if early:
        await reservations.cancel(world.ctx, got.id, ADA)
    else:
        assert got.expires_at is not None
        left = got.expires_at - world.clock.now() - timedelta(seconds=10)
        world.clock.pass_time(seconds=left.total_seconds())
    for number in range(lab._LINES_AT_END):
        await lab.closing(world.ctx, got.id, ClosingReport(saved=7 + number))
    assert "Before the end 7 documents saved." in await world.reasons(got)
    with pytest.raises(Refusal, match="said enough"):
        await lab.closing(world.ctx, got.id, ClosingReport(saved=99))


async def test_a_host_key_counts_however_often_it_was_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "_LINES_MAX", {"closing": 2, "server": 2})
    got = await lease(world)
    for key in (HOST.host_keys, [KEY], HOST.host_keys, [KEY]):
        await lab.publish_host(world.ctx, got.id, HOST.model_copy(update={"host_keys": key}))
    assert len([reason for reason in await world.reasons(got) if "SSH" in reason]) == 2
    async with world.ctx.store.reading() as session:
        row = await session.get(SshHostRow, got.id)
    assert row is not None
    assert row.host_keys == [KEY]


async def test_a_server_that_is_over_says_nothing(world: World) -> None:
    got = await world.reserve()
    await reservations.cancel(world.ctx, got.id, ADA)
    await world.sweep()
    assert await world.states(got) == [State.CANCELLED]
    with pytest.raises(Refusal, match="no server runs"):
        await lab.closing(world.ctx, got.id, ClosingReport(saved=0))
    with pytest.raises(Refusal, match="no server runs"):
        await lab.publish_host(world.ctx, got.id, HOST)

"""My reservations without JavaScript: what is shown, extended, ended, and by whom."""

from __future__ import annotations

from gpudev_client.models import ActivityReport, ServerReport
from gpudev_service.actor import Actor
from gpudev_service.loops import reconcile
from gpudev_service.operations import idle, servers
from gpudev_service.settings import IdleAction, IdleRule

from .conftest import Site


async def test_a_new_person_is_told_how_to_begin(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.open()
    assert "Nothing runs and nothing waits" in page.text
    assert page.link("Reserve GPUs") == "/hub/gpudev/new"


async def test_a_running_lease_shows_what_is_left_and_can_be_opened(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2, name="training")
    await site.world.running(mine)
    ada = await site.log_in("ada")
    page = await ada.open()
    assert "2 h left, until 14:00 UTC" in page.text
    assert page.link("Open") == f"http://hub.example/user/ada/{mine.id}/lab"


async def test_waiting_shows_the_place_and_the_promise(site: Site) -> None:
    await site.world.reserve("grace", hours=2)
    await site.world.reserve("ada", hours=1)
    ada = await site.log_in("ada")
    page = await ada.open()
    assert "Next in the queue; starts at 14:01 UTC at the latest (in 2 h 1 min)" in page.text


async def test_extending_from_the_list(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2)
    await site.world.running(mine)
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open(), "/extend", hours="1")
    assert page.result == "Extended by 1 h."
    assert "3 h left, until 15:00 UTC" in page.text
    assert "Extended by 1 h by ada." in page.text  # the history
    assert (await ada.open()).result is None  # said once


async def test_an_extension_sent_twice_is_done_once(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2)
    await site.world.running(mine)
    ada = await site.log_in("ada")
    page = await ada.open()
    values = page.values(page.form("/extend")) | {"hours": "1"}
    address = str(page.form("/extend")["action"])
    await ada.post(address, values)
    again = await ada.post(address, values)
    assert again.result == "Extended by 1 h."
    assert (await site.world.look(mine)).extended_hours == 1


async def test_a_refused_extension_keeps_what_was_typed(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2)
    await site.world.running(mine)
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open(f"reservations/{mine.id}"), "/extend", hours="500")
    assert page.status == 409
    field = page.soup.find(id="hours")
    assert field is not None
    assert field["value"] == "500"
    assert field["aria-invalid"] == "true"
    problem = page.soup.find(id=str(field["aria-describedby"]).split()[0])
    assert problem is not None
    assert "24 hours would be possible now." in problem.get_text()
    page = await ada.send(page, "/extend", hours="soon")
    assert page.status == 422
    assert "hours must be a number" in page.text
    assert (await site.world.look(mine)).extended_hours == 0


async def test_a_lease_that_cannot_be_extended_says_why(site: Site) -> None:
    await site.world.reserve("ada", hours=2)
    await site.world.reserve("grace", hours=2)
    ada = await site.log_in("ada")
    page = await ada.open()
    assert not page.has_form("/extend")
    why = "Somebody who waits has been promised 1 x t4-small from 14:01 UTC"
    assert f"Cannot be extended now. {why}" in page.text
    # The script shows it in the viewer's zone.
    times = page.soup.find_all("time", attrs={"datetime": "2026-03-01T14:01:00.000Z"})
    assert any(str(time.previous_sibling).endswith("1 x t4-small from ") for time in times)


async def test_ending_asks_first_and_keeps_the_reason(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2)
    await site.world.reserve("grace", hours=2)
    waiting = await site.world.reserve("ada", hours=2)
    ada = await site.log_in("ada")
    page = await ada.open((await ada.open()).link("Leave the queue"))
    assert "Leave the queue?" in page.text
    assert (await site.world.look(waiting)).state == "queued"
    page = await ada.send(page, "/cancel", reason="not needed <b>now</b>")
    assert page.status == 200
    assert "not needed <b>now</b>" in page.text
    assert (await site.world.look(waiting)).state == "cancelled"
    page = await ada.open(f"reservations/{mine.id}/cancel")
    assert "End this reservation?" in page.text
    page = await ada.send(page, "/cancel")
    assert "is being ended" in str(page.result)


async def test_past_reservations_come_page_by_page(site: Site) -> None:
    ada = await site.log_in("ada")
    for number in range(12):
        made = await site.world.reserve("ada", hours=1, name=f"run {number}")
        site.world.clock.pass_time(seconds=60)
        page = await ada.open(f"reservations/{made.id}/cancel")
        await ada.send(page, "/cancel")
        await site.world.sweep()
    first = await ada.open()
    assert "run 11" in first.text
    assert "run 1 " not in first.text
    second = await ada.open(first.link("Older"))
    assert "run 1 " in second.text
    assert "run 0" in second.text
    assert "Older" not in second.links()


async def test_an_idle_lease_says_so_and_is_kept(site: Site) -> None:
    world = site.world
    rule = IdleRule(action=IdleAction.RELEASE, after_minutes=60, grace_minutes=15, keeps=1)
    default = world.ctx.settings.policy.default.model_copy(update={"idle": rule})
    policy = world.ctx.settings.policy.model_copy(update={"default": default})
    world.ctx.settings = world.ctx.settings.model_copy(update={"policy": policy})
    mine = await world.reserve("ada", hours=4)
    await world.running(mine)
    world.clock.pass_time(minutes=90)
    seen = ActivityReport.model_validate({"sources": [{"source": "kernels"}]})
    await idle.record(world.ctx, mine.id, seen)
    ada = await site.log_in("ada")
    page = await ada.open(f"reservations/{mine.id}")
    assert "Nobody has used it since 12:00 UTC ; it is given back at 13:45 UTC ." in page.text
    assert "No use of kernels since the server is up." in page.text
    page = await ada.send(page, "/keep")
    assert page.result == "The lease is kept."
    assert "Kept on request until 17:30 UTC ." in page.text
    assert "Kept on request for 4 h." in page.text  # the history
    assert "Keep it" not in page.text


async def test_what_has_happened_to_the_server_stands_on_its_card(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2, name="training")
    await site.world.running(mine)
    ada = await site.log_in("ada")
    assert "in its place" not in (await ada.open()).text
    why = "The server was killed. It was started again in its place."
    said = ServerReport(status="note", message=why)
    await servers.report(site.world.ctx, mine.id, Actor("spawner"), said)
    site.world.clock.pass_time(minutes=30)
    for address in ("", f"reservations/{mine.id}", f"reservations/{mine.id}/card"):
        assert f"12:00 UTC : {why}" in (await ada.open(address)).text
    await reconcile.run(site.world.ctx)  # no process of it is there
    page = await ada.open()
    assert "The server has stopped. Start it again before 12:40 UTC" in page.text
    assert "12:30 UTC : The server has ended unexpectedly." in page.text
    assert "Your GPUs are kept" not in page.text

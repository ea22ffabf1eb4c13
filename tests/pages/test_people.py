"""Collaborators and SSH keys on the pages, without JavaScript."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpudev_client.models import CollaboratorRequest, Reservation
from gpudev_service.actor import Actor
from gpudev_service.operations import keys, sharing
from tests.api.matrix import SSH_KEY

from .conftest import Site
from .visitor import Seen

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHE7456cV84hOsKI4dUVCCKoH+IiQ5BPbuHX+u6c51dl"


def xsrf(page: Seen) -> str:
    return str(page.soup.body["data-xsrf"])  # type: ignore[index]


async def lease(site: Site, **values: object) -> Reservation:
    made = await site.world.reserve("ada", "t4", hours=2, name="training", **values)
    return await site.world.running(made)


async def invite(site: Site, to: Reservation, user: str, role: str = "use") -> None:
    request = CollaboratorRequest.model_validate({"role": role})
    await sharing.invite(site.world.ctx, to.id, user, request, Actor("ada"))


async def test_inviting_and_removing(site: Site) -> None:
    mine = await lease(site)
    ada = await site.log_in("ada")
    page = await ada.open(f"reservations/{mine.id}")
    assert "Nobody is invited." in page.text
    page = await ada.send(page, "/invite", user=" grace ", role="view")
    assert page.result == "grace is invited."
    assert "grace sees the reservation" in page.text
    page = await ada.send(page, "/invite", user="grace", role="use")
    assert "grace uses the server" in page.text
    assert "shared with grace" in (await ada.open()).text
    page = await ada.send(page, "/remove")
    assert page.result == "grace is not invited any more."
    assert (await site.world.look(mine)).collaborators == []


async def test_an_invitation_for_some_hours(site: Site) -> None:
    mine = await lease(site)
    ada = await site.log_in("ada")
    page = await ada.open(f"reservations/{mine.id}")
    offered = page.form("/invite").find_all("option")
    assert [one["value"] for one in offered] == ["use", "view", "", "1"], "the lease lasts two"
    page = await ada.send(page, "/invite", user="grace", until="1")
    assert "grace uses the server until" in page.text
    (one,) = (await site.world.look(mine)).collaborators
    now = site.world.clock.now()
    assert one.until == now + timedelta(hours=1)
    # The form was open for long, and what it offered would be after the lease's end now.
    site.world.clock.pass_time(minutes=70)
    page = await ada.send(page, "/invite", user="linus", until="1")
    assert page.status == 422
    problem = page.soup.find(id="invite-until-problem")
    assert problem is not None
    assert "not after the lease" in problem.get_text()
    page = await ada.send(page, "/invite", user="linus", until="")
    assert [one.until for one in (await site.world.look(mine)).collaborators] == [None]


async def test_a_name_that_nobody_has_comes_back(site: Site) -> None:
    mine = await lease(site)
    ada = await site.log_in("ada")
    page = await ada.open(f"reservations/{mine.id}")
    for user, why in (("nobody", "no user of that name"), ("ada", "theirs already"), ("a/b", "no")):
        page = await ada.send(page, "/invite", user=user, role="view")
        assert page.status == 422
        field = page.soup.find(id="invite-user")
        assert field is not None
        assert field["value"] == user
        problem = page.soup.find(id="invite-user-problem")
        assert problem is not None
        assert why in problem.get_text()
        assert page.values(page.form("/invite"))["role"] == "view"


async def test_what_is_shared_stands_in_ones_own_list(site: Site) -> None:
    mine = await lease(site, disk="work", create_disk=True)
    grace = await site.log_in("grace")
    assert "training" not in (await grace.open()).text
    await invite(site, mine, "grace")
    page = await grace.open()
    assert "shared by ada" in page.text
    assert page.link("Open") == f"http://hub.example/user/ada/{mine.id}/lab"
    assert "work" not in page.links(), "the disk is not grace's"
    assert not page.has_form("/extend")
    page = await grace.open(f"reservations/{mine.id}")
    assert "grace (you) uses the server" in page.text
    assert not page.has_form("/invite")
    assert not page.has_form("/extend")
    page = await grace.send(page, "/remove")
    assert page.result == "You have left the reservation."
    assert "training" not in page.text
    assert (await grace.open(f"reservations/{mine.id}")).status == 404


async def test_who_may_only_see_is_offered_nothing_to_open(site: Site) -> None:
    mine = await lease(site)
    await invite(site, mine, "grace", "view")
    grace = await site.log_in("grace")
    page = await grace.open()
    assert "2 h left" in page.text
    assert "Open" not in [link.split()[0] for link in page.links() if link]


async def test_a_collaborator_cannot_do_by_form_what_the_page_does_not_offer(site: Site) -> None:
    mine = await lease(site)
    await invite(site, mine, "grace")
    await invite(site, mine, "linus")
    grace = await site.log_in("grace")
    token = xsrf(await grace.open())
    base = f"reservations/{mine.id}"
    for path, values in (
        ("/invite", {"user": "eve"}),
        ("/invite", {"user": "grace", "role": "use"}),
        ("/remove", {"user": "linus"}),
        ("/extend", {"hours": "1"}),
        ("/cancel", {}),
    ):
        page = await grace.post(f"{base}{path}", {"_xsrf": token, **values})
        assert page.status == 403, path
    stranger = await site.log_in("eve")
    token = xsrf(await stranger.open())
    for path in ("/invite", "/remove"):
        page = await stranger.post(f"{base}{path}", {"_xsrf": token, "user": "linus"})
        assert page.status == 404
    assert [one.user for one in (await site.world.look(mine)).collaborators] == ["grace", "linus"]


@pytest.mark.parametrize("path", ["ssh-keys", "ssh-keys/remove"])
async def test_keys_change_by_our_own_forms_only(site: Site, path: str) -> None:
    ada = await site.log_in("ada")
    await ada.open()
    page = await ada.post(path, {"keys": SSH_KEY, "fingerprint": "x"})
    assert page.status == 403
    assert (await keys.listing(site.world.ctx, "ada")).items == []


async def test_adding_and_removing_keys(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.open((await ada.open()).link("SSH keys"))
    assert "There are no keys yet." in page.text
    page = await ada.send(page, "/ssh-keys", keys=f"{SSH_KEY} laptop")
    assert page.result == "The key opens the servers that you may use."
    assert "laptop" in page.text
    page = await ada.send(page, "/ssh-keys", keys=f"# two\r\n{SSH_KEY} desk\r\n\r\n{OTHER}\r\n")
    assert page.result == "2 keys open the servers that you may use."
    found = (await keys.listing(site.world.ctx, "ada")).items
    assert {(key.key, key.comment) for key in found} == {(SSH_KEY, "desk"), (OTHER, "")}
    page = await ada.send(page, "/remove")
    assert page.result == "The key is removed."
    assert len((await keys.listing(site.world.ctx, "ada")).items) == 1


async def test_a_key_that_is_refused_comes_back_with_the_reason(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open("ssh-keys"), "/ssh-keys", keys=f'command="id" {SSH_KEY}')
    assert page.status == 422
    field = page.soup.find(id="new-keys")
    assert field is not None
    assert f'command="id" {SSH_KEY}' in field.get_text()
    assert "options before the key are not accepted" in page.text


async def test_a_private_key_does_not_come_back(site: Site) -> None:
    ada = await site.log_in("ada")
    secret = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3BlbnNzaC1rZXk\r\n-----END"
    page = await ada.send(await ada.open("ssh-keys"), "/ssh-keys", keys=secret)
    assert page.status == 422
    assert "it is a private key" in page.text
    assert "b3Blbn" not in page.answer.text


async def test_who_may_only_look_sees_keys_and_no_form(site: Site) -> None:
    await keys.replace(site.world.ctx, "ada", [f"{SSH_KEY} laptop"], Actor("ada"))
    reader = await site.log_in("ada", ["custom:gpudev:read!user=ada"])
    page = await reader.open("ssh-keys")
    assert "laptop" in page.text
    assert not page.has_form("/ssh-keys")
    server = await site.log_in("ada", ["custom:gpudev:lab!server=ada/x"])
    assert (await server.open("ssh-keys")).status == 403


async def test_hostile_names_and_comments_are_only_text(site: Site) -> None:
    hostile = "<img src=x onerror=alert(1)>\"'&"
    mine = await lease(site)
    await invite(site, mine, hostile)
    await keys.replace(site.world.ctx, "ada", [f"{SSH_KEY} {hostile}"], Actor("ada"))
    ada = await site.log_in("ada")
    for path in ("", f"reservations/{mine.id}", "ssh-keys"):
        page = await ada.open(path)
        assert hostile in page.text, path
        assert page.soup.find("img", src="x") is None
        assert not page.soup.select("[onerror]")
    page = await ada.send(await ada.open(f"reservations/{mine.id}"), "/remove")
    assert page.result == f"{hostile} is not invited any more."
    page = await ada.send(page, "/invite", user=f"{hostile}/")
    field = page.soup.find(id="invite-user")
    assert field is not None
    assert field["value"] == f"{hostile}/"

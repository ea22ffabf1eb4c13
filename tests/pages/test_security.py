"""Who gets in, what a page never does, and what it never says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gpudev_client.models import DiskRequest
from gpudev_service.actor import Actor
from gpudev_service.operations import disks, snapshots
from gpudev_service.pages import base, headers, reservations, routes
from gpudev_service.pages.base import local

from .conftest import Site
from .visitor import PREFIX, Seen

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


def xsrf(page: Seen) -> str:
    return str(page.soup.body["data-xsrf"])  # type: ignore[index]


async def test_whom_nobody_knows_logs_in_and_comes_back(site: Site) -> None:
    visitor = await site.stranger()
    site.hub.next_login = site.hub.introduce("ada")
    page = await visitor.open("disks?cursor=")
    assert page.status == 200
    assert page.path == f"{PREFIX}disks?cursor="


async def test_a_script_without_login_is_not_sent_to_the_hub(site: Site) -> None:
    visitor = await site.stranger()
    visitor.http.follow_redirects = False
    page = await visitor.open("", Sec_Fetch_Mode="cors")
    assert page.status == 401
    page = await visitor.post("disks", {"name": "x"})
    assert page.status == 401
    assert "Your login has ended" in page.text


async def test_who_may_use_nothing_of_gpudev_is_told_so(site: Site) -> None:
    visitor = await site.stranger()
    site.hub.next_login = site.hub.introduce("eve", [])
    page = await visitor.open()
    assert page.status == 403
    site.hub.people[site.hub.next_login]["scopes"] = ["custom:gpudev:reserve!user=eve"]
    assert (await (await site.stranger()).open()).status == 403  # may not use the service


async def test_a_form_without_the_token_changes_nothing(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2)
    ada = await site.log_in("ada")
    good = xsrf(await ada.open())
    mallory = await site.log_in("mallory")
    theirs = xsrf(await mallory.open())
    for token in ("", "nonsense", theirs, good[:-3]):
        for path in (f"reservations/{mine.id}/cancel", "disks"):
            page = await ada.post(path, {"_xsrf": token, "name": "work"})
            assert page.status == 403
            assert good not in page.answer.text or token == ""
    assert (await site.world.look(mine)).state == "preparing"
    assert "work" not in (await ada.open("disks")).links()


async def test_another_site_cannot_use_the_login(site: Site) -> None:
    """What a page of another user's server on this host can send with the person's cookies."""
    mine = await site.world.reserve("ada", hours=2)
    ada = await site.log_in("ada")
    page = await ada.post(
        f"reservations/{mine.id}/cancel", {}, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors"
    )
    assert page.status == 403
    read = await ada.open(f"reservations/{mine.id}/card", Sec_Fetch_Mode="cors")
    assert read.status in {401, 403}
    assert mine.name not in read.answer.text


async def test_what_is_not_yours_is_not_there(site: Site) -> None:
    hers = await site.world.reserve("grace", hours=2, name="secret-project")
    ada = await site.log_in("ada")
    token = xsrf(await ada.open())
    missing = await ada.open("reservations/a234567890123456")
    for path in ("", "/cancel", "/card"):
        page = await ada.open(f"reservations/{hers.id}{path}")
        assert page.status == 404
        assert "secret-project" not in page.answer.text
    page = await ada.open(f"reservations/{hers.id}")
    assert page.text.split("Request")[0] == missing.text.split("Request")[0]
    for path in ("extend", "cancel"):
        page = await ada.post(f"reservations/{hers.id}/{path}", {"_xsrf": token, "hours": "1"})
        assert page.status == 404
    assert (await site.world.look(hers)).state == "preparing"


async def test_who_may_only_look_has_no_buttons(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2)
    await site.world.running(mine)
    ada = await site.log_in("ada", ["custom:gpudev:read!user=ada"])
    page = await ada.open()
    assert "2 h left" in page.text
    assert not page.has_form("/extend")
    assert not any(link.startswith("End now") for link in page.links())
    assert not (await ada.open("disks")).has_form("/disks")
    page = await ada.post(f"reservations/{mine.id}/extend", {"_xsrf": xsrf(page), "hours": "1"})
    assert page.status == 403


async def test_a_servers_token_sees_its_own_reservation_only(site: Site) -> None:
    mine = await site.world.reserve("ada", hours=2, name="this one")
    await site.world.reserve("ada", "t4", hours=2, name="another one")
    server = await site.log_in("ada", [f"custom:gpudev:reserve!server=ada/{mine.server_name}"])
    page = await server.open()
    assert "this one" in page.text
    assert "another one" not in page.text
    assert (await server.open("disks")).status == 403


async def test_hostile_names_are_only_text(site: Site) -> None:
    world, ada_actor = site.world, Actor("ada")
    mine = await world.reserve("ada", hours=2, name=HOSTILE, disk="work", create_disk=True)
    await world.running(mine)
    queued = await world.reserve("ada", hours=2, name=HOSTILE)
    await snapshots.take(world.ctx, "ada", "work", HOSTILE, ada_actor)
    await world.ctx.background.settle()
    ada = await site.log_in("ada")
    page = await ada.open(f"reservations/{queued.id}/cancel")
    await ada.send(page, "/cancel", reason=HOSTILE)
    admin = await site.admin()
    await admin.send(await admin.open("admin"), "/nodes/t4-1/drain", reason=HOSTILE)
    await admin.send(await admin.open("admin"), "/types/t4/maintenance", message=HOSTILE)
    paths = ["", f"reservations/{mine.id}", f"reservations/{queued.id}", "disks", "disks/work"]
    paths += [f"reservations/{mine.id}/cancel", f"reservations/{mine.id}/card", "fleet"]
    seen = 0
    for visitor, more in ((ada, []), (admin, ["admin?state=all"])):
        for path in paths + more:
            page = await visitor.open(path)
            assert page.soup.find("img", src="x") is None, path
            assert all(s.get("nonce") for s in page.soup.find_all("script")), path
            assert not page.soup.select("[onerror]"), path
            seen += page.text.count("<script>alert('x')</script>")
    assert seen >= 12  # it was there to be seen


async def test_a_refused_form_gives_back_hostile_text_as_text(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open("disks"), "/disks", name=f'"><b>{HOSTILE}')
    assert page.status == 422
    field = page.soup.find(id="create-name")
    assert field is not None
    assert field["value"] == f'"><b>{HOSTILE}'


async def test_every_page_has_its_headers(site: Site) -> None:
    ada = await site.log_in("ada")
    nonces = set()
    for path in ("", "disks", "fleet", "nowhere", "admin", "reservations/x"):
        page = await ada.open(path)
        headers = page.answer.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "'self'" not in re.search("script-src [^;]*", policy)[0]  # type: ignore[index]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers
        nonces.add(re.search("'nonce-([^']+)'", policy)[1])  # type: ignore[index]
        for tag in page.soup.find_all(["script", "link"]):
            assert tag.name == "script" or "stylesheet" not in tag["rel"] or tag.get("nonce")
        assert not page.soup.find_all(style=True)
    assert len(nonces) == 6


@pytest.mark.parametrize("host", ["evil.example; script-src *", "a b", "x,y", "<b>", "é"])
async def test_a_host_that_is_none_reaches_no_header(site: Site, host: str) -> None:
    ada = await site.log_in("ada")
    answer = await ada.http.get(PREFIX, headers={b"Host": host.encode()})
    assert host not in str(answer.headers)
    assert headers.below(host, "/hub/static/") == ()


async def test_scripts_and_styles_are_served_and_nothing_beside_them(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.open()
    for tag in page.soup.find_all(["script", "link"]):
        address = str(tag.get("src") or tag.get("href"))
        if address.startswith(PREFIX):
            answer = await ada.http.get(address)
            assert answer.status_code == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("static/../base.py", "static/%2e%2e/base.py", "static/", "static/page.html"):
        assert (await ada.open(path)).status in {403, 404}


async def test_a_defect_says_nothing_but_its_number(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    ada = await site.log_in("ada")

    async def fails(*_: object) -> None:
        raise RuntimeError("/etc/secret/path is not there")

    monkeypatch.setattr(reservations.Mine, "get", fails)
    page = await ada.open()
    assert page.status == 500
    assert "Something went wrong in gpudev" in page.text
    assert "secret" not in page.answer.text
    assert "Traceback" not in page.answer.text
    number = page.answer.headers["X-Request-Id"]
    assert f"Request {number}" in page.text
    logged = [r for r in caplog.records if r.message == "page failed"]
    assert logged[0].fields["request_id"] == number


async def test_the_logins_way_back_has_errors_in_our_look(site: Site) -> None:
    visitor = await site.stranger()
    page = await visitor.open("oauth_callback?code=x&state=y")
    assert page.status in {400, 403}
    assert "Request " in page.text
    assert "Traceback" not in page.answer.text


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/services/gpudev/disks?user=a%2Fb", "/services/gpudev/disks?user=a%2Fb"),
        ("https://evil.example/x", "/x"),
        ("//evil.example/x", "/x"),
        ("/\\evil.example", "/evil.example"),
        ("///evil.example", "/evil.example"),
        ("javascript:alert(1)", "/alert(1)"),
        ("//[evil.example/x", "/"),
        ("//evil.example\uff0fx", "/"),
        ("", "/"),
    ],
)
def test_a_redirect_stays_here(address: str, expected: str) -> None:
    assert local(address) == expected


async def test_every_page_belongs_to_the_base(site: Site) -> None:
    """No page can forget to ask who looks: nothing but the login's way back replaces `prepare`
    without calling the base's."""
    for _, page in routes._PAGES:
        assert issubclass(page, base.PageHandler)
        for cls in page.__mro__:
            if "prepare" in cls.__dict__ and cls is not base.PageHandler:
                assert cls.__name__ in {"Admin", "RequestHandler"}


async def test_no_address_takes_an_unknown_method(site: Site) -> None:
    ada = await site.log_in("ada")
    for method in ("PUT", "DELETE", "PATCH"):
        answer = await ada.http.request(method, f"{PREFIX}disks", headers={"X-XSRFToken": "x"})
        assert answer.status_code in {403, 405}
    await disks.create(site.world.ctx, "ada", DiskRequest(name="work"), (), Actor("ada"))
    answer = await ada.http.request("DELETE", f"{PREFIX}disks/work")
    assert answer.status_code in {403, 405}

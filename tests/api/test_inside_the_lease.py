"""Collaborators, SSH keys and tickets as callers meet them: what each may, and may not, do."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gpudev_service.loops import driving
from tests.fixtures.hub import ADMIN, LEADER, RunningHub

from .matrix import SSH_KEY
from .site import Site

pytestmark = [
    pytest.mark.hub,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

LAB = "custom:gpudev:lab"
HOST = {"host_keys": [SSH_KEY], "login": "jovyan"}


@pytest.fixture
def ada(running_hub: RunningHub) -> str:
    return running_hub.user("ada")


@pytest.fixture
def grace(running_hub: RunningHub) -> str:
    return running_hub.user("grace")


async def lease(site: Site, token: str, **changes: Any) -> str:
    body = {"gpu_type": "h100", "hours": 1, "gpus": 1, **changes}
    answer = await site.call("POST", "/reservations", token, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def invite(site: Site, token: str, key: str, user: str, **body: Any) -> None:
    answer = await site.call("PUT", f"/reservations/{key}/collaborators/{user}", token, body)
    assert answer.status_code == 200, answer.text


async def ready(site: Site, hub: RunningHub, owner: str, key: str) -> str:
    """Publishes the server's host key; the token of the server."""
    server = hub.token(owner, [f"{LAB}!server={owner}/{key}"])
    answer = await site.call("PUT", f"/reservations/{key}/ssh-host", server, HOST)
    assert answer.status_code == 200, answer.text
    return server


async def code(site: Site, method: str, path: str, token: str, body: Any = None) -> tuple[int, str]:
    answer = await site.call(method, path, token, body)
    return answer.status_code, answer.json().get("error", {}).get("code", "")


async def test_a_collaborator_finds_the_lease_among_their_own(
    site: Site, ada: str, grace: str
) -> None:
    key = await lease(site, ada)
    await invite(site, ada, key, "grace")
    items = (await site.call("GET", "/reservations", grace)).json()["items"]
    (shared,) = [one for one in items if one["id"] == key]
    assert (shared["user"], shared["url"].endswith(f"/user/ada/{key}/lab")) == ("ada", True)
    own = (await site.call("GET", "/reservations?user=grace", grace)).json()["items"]
    assert key not in [one["id"] for one in own]
    assert (await site.call("GET", f"/reservations/{key}/history", grace)).status_code == 200


async def test_a_collaborator_cannot_invite_extend_rise_or_remove_others(
    site: Site, running_hub: RunningHub, ada: str, grace: str
) -> None:
    linus = running_hub.user("linus")
    key = await lease(site, ada)
    await invite(site, ada, key, "grace", role="view")
    await invite(site, ada, key, "linus")
    path = f"/reservations/{key}"
    people = f"{path}/collaborators"
    tried = [
        ("PUT", f"{people}/eve", {}),
        ("PUT", f"{people}/grace", {"role": "use"}),
        ("DELETE", f"{people}/ada", None),
        ("POST", f"{path}/extension", {"hours": 1}),
        ("POST", f"{path}/snapshot", {}),
        ("DELETE", path, None),
        ("GET", f"{path}/lab", None),
        ("PUT", f"{path}/ssh-host", HOST),
    ]
    for token, other in ((grace, "linus"), (linus, "grace")):
        for method, where, body in [*tried, ("DELETE", f"{people}/{other}", None)]:
            assert await code(site, method, where, token, body) == (403, "not_allowed"), where
    assert await code(site, "POST", f"{path}/ssh", grace) == (403, "not_allowed")
    assert (await code(site, "DELETE", f"{people}/grace", grace))[0] == 200
    assert await code(site, "GET", path, grace) == (404, "not_found")


async def test_a_token_of_one_server_has_nothing_of_its_holders_invitations(
    site: Site, running_hub: RunningHub, ada: str, grace: str
) -> None:
    key, own = await lease(site, ada), await lease(site, grace)
    await invite(site, ada, key, "grace")
    for scope in (LAB, "custom:gpudev:reserve"):
        narrowed = running_hub.token("grace", [f"{scope}!server=grace/{own}"])
        items = (await site.call("GET", "/reservations", narrowed)).json()["items"]
        assert [one["id"] for one in items] == [own]
        for method, path, body in [
            ("GET", "", None),
            ("GET", "/lab", None),
            ("GET", "/events", None),
            ("DELETE", "/collaborators/grace", None),
            ("POST", "/ssh-tickets", {"ticket": "t" * 43}),
        ]:
            answer = await code(site, method, f"/reservations/{key}{path}", narrowed, body)
            assert answer in {(404, "not_found"), (403, "not_allowed")}
            gone = await code(site, method, f"/reservations/a{'0' * 15}{path}", narrowed, body)
            assert answer == gone
        assert await code(site, "GET", "/users/grace/ssh-keys", narrowed) == (403, "not_allowed")


async def test_only_who_may_invite_learns_whom_the_hub_knows(
    site: Site, ada: str, grace: str
) -> None:
    key = await lease(site, ada)
    path = f"/reservations/{key}/collaborators"
    answer = await site.call("PUT", f"{path}/nobody-here", ada, {})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "user"
    answers = [
        (await site.call("PUT", f"{path}/{user}", grace, {})).content
        for user in ("nobody-here", "ada", "grace")
    ]
    assert len(set(answers)) == 1
    answers = [
        (await site.call("GET", f"/users/{user}/ssh-keys", grace)).content
        for user in ("nobody-here", "ada")
    ]
    assert len(set(answers)) == 1


async def test_a_key_line_with_options_is_refused(site: Site, ada: str) -> None:
    path = "/users/ada/ssh-keys"
    for line in (f'command="id" {SSH_KEY}', f"{SSH_KEY}\nrestrict {SSH_KEY}", f"{SSH_KEY}\0"):
        answer = await site.call("PUT", path, ada, {"keys": [line]})
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "keys.0")
        assert SSH_KEY not in answer.text
    assert (await site.call("GET", path, ada)).json() == {"items": []}


async def test_an_admin_sets_anybodys_keys_and_a_group_admin_nobodys(
    site: Site, running_hub: RunningHub
) -> None:
    running_hub.user("kay", "lab")
    root = running_hub.user(ADMIN)
    path = "/users/kay/ssh-keys"
    assert (await site.call("PUT", path, root, {"keys": [SSH_KEY]})).status_code == 200
    leader = running_hub.user(LEADER)
    assert await code(site, "PUT", path, leader, {"keys": []}) == (403, "not_allowed")
    assert await code(site, "GET", path, leader) == (403, "not_allowed")
    missing = await code(site, "PUT", "/users/no-such-user/ssh-keys", root, {"keys": []})
    assert missing == (422, "invalid_input")
    assert (await site.call("PUT", path, root, {"keys": []})).json() == {"items": []}


async def test_a_ticket_opens_its_own_server_once(
    site: Site, running_hub: RunningHub, ada: str, grace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, other = await lease(site, ada), await lease(site, ada)
    await invite(site, ada, key, "grace")
    assert await code(site, "POST", f"/reservations/{key}/ssh", grace) == (409, "no_ssh_keys")
    await site.call("PUT", "/users/grace/ssh-keys", grace, {"keys": [SSH_KEY]})
    assert await code(site, "POST", f"/reservations/{key}/ssh", grace) == (409, "server_not_ready")
    server = await ready(site, running_hub, "ada", key)
    elsewhere = await ready(site, running_hub, "ada", other)

    async def ticket() -> str:
        answer = await site.call("POST", f"/reservations/{key}/ssh", grace)
        assert answer.status_code == 200, answer.text
        assert answer.json()["host_keys"] == [SSH_KEY]
        return str(answer.json()["ticket"])

    async def redeem(where: str, token: str, shown: str) -> tuple[int, Any]:
        path = f"/reservations/{where}/ssh-tickets"
        answer = await site.call("POST", path, token, {"ticket": shown})
        return answer.status_code, answer.json()

    first = await ticket()
    held = {"user": "grace", "role": "use", "keys": [SSH_KEY], "owner": False}
    assert await redeem(key, server, first) == (200, held)
    assert (await redeem(key, server, first))[0] == 404
    second = await ticket()
    assert (await redeem(other, elsewhere, second))[0] == 404
    assert (await redeem(key, server, second))[0] == 404, "shown to the wrong server, it is spent"
    third = await ticket()
    await site.call("DELETE", f"/reservations/{key}/collaborators/grace", ada)
    assert (await redeem(key, server, third))[0] == 404
    for one in (first, second, third):
        assert one not in caplog.text


async def test_a_removed_collaborator_hears_nothing_more(site: Site, ada: str, grace: str) -> None:
    key = await lease(site, ada)
    await invite(site, ada, key, "grace")
    async with (
        site.stream(f"/reservations/{key}/events", grace) as one,
        site.stream("/events", grace) as everything,
    ):
        assert (await one.message())["data"]["reservation"]["id"] == key
        seen = await everything.message()
        while seen["data"]["reservation"]["id"] != key:
            seen = await everything.message()
        await site.call("DELETE", f"/reservations/{key}/collaborators/grace", ada)
        await one.end()


async def test_the_service_knows_which_servers_listen(
    site: Site, running_hub: RunningHub, ada: str
) -> None:
    key = await lease(site, ada)
    server = running_hub.token("ada", [f"{LAB}!server=ada/{key}"])
    async with site.stream(f"/reservations/{key}/events", ada) as people:
        await people.message()
        assert not site.ctx.labs.listens(key), "the owner's own token is no server"
        async with site.stream(f"/reservations/{key}/events", server) as lab:
            await lab.message()
            assert site.ctx.labs.listens(key)
            await site.call("DELETE", f"/reservations/{key}", ada)
            while (await lab.message())["data"]["reservation"]["state"] != "stopping":
                pass
            said = {"saved": 1, "unsaved": []}
            answer = await site.call("POST", f"/reservations/{key}/closing", server, said)
            assert answer.status_code == 200
            assert await site.ctx.labs.wait_closed(key, 3600)


async def test_a_servers_token_has_nothing_of_a_lease_that_is_over(
    site: Site, running_hub: RunningHub, ada: str
) -> None:
    """Also while the Hub still knows it, or we have not asked the Hub again."""
    key = await lease(site, ada)
    server = running_hub.token("ada", [f"{LAB}!server=ada/{key}"])
    path = f"/reservations/{key}"
    assert (await site.call("GET", path, server)).status_code == 200
    await site.call("DELETE", path, ada)
    assert (await site.call("GET", path, server)).status_code == 200, "it is just closing"
    await driving.end(site.ctx, key)
    assert (await site.call("GET", path, server)).status_code == 404
    assert (await site.call("GET", path, ada)).json()["state"] == "cancelled"

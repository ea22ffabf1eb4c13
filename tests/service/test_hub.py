"""The client of the Hub's API: against a server that misbehaves, and against a real Hub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gpudev_hub_config.secrets import secret
from gpudev_service.hub import Hub, HubAway, HubRefused
from tests.fixtures.hub import RunningHub

#: (method, path with query) -> (status, body)
Answer = Callable[[str, str], tuple[int, Any]]


class OddHub:
    """Answers what a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _method, _path: (200, {})
        self.asked: list[str] = []

    def application(self) -> Application:
        odd = self

        class Handler(RequestHandler):
            def _any(self) -> None:
                path = self.request.uri or ""
                method = self.request.method or ""
                odd.asked.append(f"{method} {path}")
                status, body = odd.answer(method, path)
                self.set_status(status)
                self.finish(body if isinstance(body, str) else json.dumps(body))

            get = post = delete = _any

        return Application([(r"/.*", Handler)])


@pytest.fixture
def odd() -> OddHub:
    return OddHub()


@pytest.fixture
async def hub(odd: OddHub) -> AsyncIterator[Hub]:
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(odd.application())
    server.add_sockets(sockets)
    client = Hub(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/hub/api", "t", patience=5)
    yield client
    await client.close()
    server.stop()
    await server.close_all_connections()


@pytest.mark.parametrize(
    "body",
    ["<html>Welcome to nginx!</html>", "[]", '{"items": [1], "_pagination": {"next": null}}', "{}"],
)
async def test_an_answer_without_sense_is_a_hub_that_is_away(
    hub: Hub, odd: OddHub, body: str
) -> None:
    odd.answer = lambda _method, _path: (200, body)
    with pytest.raises(HubAway):
        await hub.servers()


async def test_a_page_instead_of_a_user_is_a_hub_that_is_away(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (200, "<html>")
    with pytest.raises(HubAway):
        await hub.server("ada", "x")
    with pytest.raises(HubAway):
        await hub.groups("ada")
    with pytest.raises(HubAway):
        await hub.new_token("ada", login="t", scopes=(), note="", seconds=1)


async def test_pages_that_do_not_go_on_are_not_read_for_ever(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (
        200,
        {"items": [], "_pagination": {"next": {"offset": 0}}},
    )
    with pytest.raises(HubAway):
        await hub.servers()
    assert len(odd.asked) == 1


async def test_a_user_seen_on_two_pages_counts_once(hub: Hub, odd: OddHub) -> None:
    row = {"ready": True, "pending": None, "stopped": False}

    def answer(_method: str, path: str) -> tuple[int, Any]:
        more = None if path.endswith("offset=1") else {"offset": 1}
        ada = {"name": "ada", "servers": {"x": row}}
        return 200, {"items": [ada], "_pagination": {"next": more}}

    odd.answer = answer
    assert [(s.user, s.name, s.ready) for s in await hub.servers()] == [("ada", "x", True)]


async def test_too_many_starts_at_once_means_later_and_not_no(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (429, {"message": "Too many users trying to log in."})
    with pytest.raises(HubAway):
        await hub.start("ada", "x", "r")


async def test_a_row_is_removed_by_a_hub_without_our_handlers_too(hub: Hub, odd: OddHub) -> None:
    servers: dict[str, Any] = {"x": {"ready": False, "pending": None}}

    def answer(method: str, path: str) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"servers": servers}
        return (404, {"message": "Not Found"}) if "gpudev" in path else (202, "")

    odd.answer = answer
    await hub.remove("ada", "x")
    assert [one for one in odd.asked if one.startswith("DELETE")] == [
        "DELETE /hub/api/gpudev/servers/ada/x", "DELETE /hub/api/users/ada/servers/x",
    ]  # fmt: skip
    servers["x"]["pending"] = "spawn"
    odd.asked.clear()
    await hub.remove("ada", "x")
    assert "DELETE /hub/api/users/ada/servers/x" not in odd.asked, "somebody has started it"
    servers.clear()
    odd.asked.clear()
    await hub.remove("ada", "x")
    assert [one for one in odd.asked if one.startswith("DELETE")] == [
        "DELETE /hub/api/gpudev/servers/ada/x"
    ]


async def test_a_row_of_a_server_that_runs_stays(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (409, {"message": "The server runs."})
    with pytest.raises(HubRefused) as refused:
        await hub.remove("ada", "x")
    assert refused.value.status == 409
    assert len(odd.asked) == 1


async def test_a_start_that_runs_already_is_fine_and_a_refusal_is_told(
    hub: Hub, odd: OddHub
) -> None:
    servers: dict[str, Any] = {"x": {"ready": True, "pending": None}}

    def answer(method: str, _path: str) -> tuple[int, Any]:
        if method == "POST":
            return 400, {"message": "x is already running"}
        return 200, {"servers": servers}

    odd.answer = answer
    await hub.start("ada", "x", "r")
    servers["x"] = {"ready": False, "pending": "stop"}
    await hub.start("ada", "x", "r")
    servers["x"] = {"ready": False, "pending": None}
    with pytest.raises(HubRefused) as refused:
        await hub.start("ada", "x", "r")
    assert (refused.value.status, refused.value.message) == (400, "x is already running")


@pytest.mark.parametrize(
    ("body", "message"), [("<html>", "status 403"), ("[]", "status 403"), ("{}", "status 403")]
)
async def test_a_refusal_without_words_has_its_status(
    hub: Hub, odd: OddHub, body: str, message: str
) -> None:
    odd.answer = lambda _method, _path: (403, body)
    with pytest.raises(HubRefused) as refused:
        await hub.stop("ada", "x")
    assert refused.value.message == message


async def test_what_is_not_there_is_none_or_fine(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (404, {"message": "No such user"})
    assert await hub.server("ada", "x") is None
    assert await hub.groups("ada") is None
    await hub.stop("ada", "x")


async def test_other_refusals_are_told(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (403, {"message": "Forbidden"})
    for call in (hub.server("ada", "x"), hub.groups("ada"), hub.servers(), hub.stop("ada", "x")):
        with pytest.raises(HubRefused):
            await call


async def test_a_broken_hub_and_none_at_all_are_away(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (503, "")
    with pytest.raises(HubAway):
        await hub.stop("ada", "x")
    nobody = Hub("http://127.0.0.1:9/hub/api", "t", patience=0.5)
    with pytest.raises(HubAway):
        await nobody.servers()
    await nobody.close()


async def test_names_are_quoted(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (200, {"servers": {}})
    await hub.stop("a/b?c#d e%2f", "x y/z")
    await hub.stop("ada", "")
    await hub.server("größe", "x")
    assert odd.asked == [
        "DELETE /hub/api/users/a%2Fb%3Fc%23d%20e%252f/servers/x%20y%2Fz",
        "DELETE /hub/api/users/ada/server",
        "GET /hub/api/users/gr%C3%B6%C3%9Fe?include_stopped_servers=1",
    ]


async def test_a_name_that_an_address_would_swallow_is_nobodys(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (200, {"servers": {}, "groups": ["admins"]})
    for name in (".", "..", "\ud800"):
        assert await hub.server(name, "x") is None
        assert await hub.groups(name) is None
        await hub.stop(name, "x")  # not there, which is fine
        await hub.stop("ada", name)
        assert await hub.shares("ada", name) == frozenset()
        for call in (hub.start("ada", name, "id"), hub.share(name, "x", "eve")):
            with pytest.raises(HubRefused):
                await call
    assert odd.asked == ["GET /hub/api/users/ada?include_stopped_servers=1"] * 3


# --- a real one -----------------------------------------------------------------------------------


@pytest.fixture
async def real(running_hub: RunningHub) -> AsyncIterator[Hub]:
    client = Hub(f"{running_hub.url}/hub/api", running_hub._admin_token)
    yield client
    await client.close()


@pytest.mark.hub
async def test_more_users_than_a_page_are_all_read(running_hub: RunningHub, real: Hub) -> None:
    names = [f"paged-{n}" for n in range(205)]
    running_hub.api("POST", "users", {"usernames": names})
    pages: list[str] = []
    real._http.event_hooks["response"].append(_keep(pages))
    # Everybody has a row for the default server, though it never ran.
    assert {server.user for server in await real.servers()} >= set(names)
    assert len(pages) > 1


def _keep(pages: list[str]) -> Any:
    async def hook(response: httpx.Response) -> None:
        pages.append(str(response.url))

    return hook


@pytest.mark.hub
@pytest.mark.parametrize("name", ["o'brien@lab.example", "two words", "größe", "per%20cent"])
async def test_odd_names_reach_the_right_user(
    running_hub: RunningHub, real: Hub, name: str
) -> None:
    running_hub.user(name, "odd-names")
    assert await real.groups(name) == ("odd-names",)
    assert await real.server(name, "none") is None
    await real.stop(name, "none")


@pytest.mark.hub
async def test_a_start_that_the_hub_takes_and_one_that_it_refuses(
    running_hub: RunningHub, real: Hub
) -> None:
    running_hub.user("starter")
    with pytest.raises(HubRefused):
        await real.start("starter", "abcdefghij012345", "abcdefghij012345")
    with pytest.raises(HubRefused):
        await real.start("nobody-of-that-name", "abcdefghij012345", "abcdefghij012345")
    assert await real.groups("nobody-of-that-name") is None


@pytest.mark.hub
@pytest.mark.parametrize("server", ["", "shared01"])
async def test_sharing_a_server_of_a_real_hub(running_hub: RunningHub, server: str) -> None:
    """With the service's own token: the scopes that it is given are enough for it."""
    owner = f"sharer{len(server)}@example.org"
    for user in (owner, "friend one", "friend-two"):
        running_hub.user(user)
    service = Hub(
        f"{running_hub.url}/hub/api", secret(running_hub.home / "secrets", "service_token")
    )
    try:
        assert await service.shares(owner, server) == frozenset()
        if server:  # everybody has a row for the default server
            with pytest.raises(HubRefused) as raised:
                await service.share(owner, server, "friend-two")
            assert raised.value.status == 404
        await service.unshare(owner, server, "friend-two")
        # The form makes the row.
        with running_hub.browser(owner) as browser:
            browser.get(f"{running_hub.url}/hub/spawn/{quote(owner)}/{server}".rstrip("/"))
        for user in ("friend one", "friend-two", "friend-two"):
            await service.share(owner, server, user)
        assert await service.shares(owner, server) == {"friend one", "friend-two"}
        for _ in range(2):
            await service.unshare(owner, server, "friend one")
        assert await service.shares(owner, server) == {"friend-two"}
        with pytest.raises(HubRefused):
            await service.share(owner, server, "nobody at all")
        assert await service.groups("nobody at all") is None
        await service.unshare(owner, server, "nobody at all")
    finally:
        await service.close()


async def test_shares_without_sense_are_no_answer(hub: Hub, odd: OddHub) -> None:
    odd.answer = lambda _method, _path: (200, {"items": [{"user": 3}]})
    with pytest.raises(HubAway, match="without sense"):
        await hub.shares("ada", "x")
    odd.answer = lambda _method, _path: (403, {"message": "no"})
    with pytest.raises(HubRefused, match="no"):
        await hub.shares("ada", "x")

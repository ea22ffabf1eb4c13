"""Who is refused at the SSH socket of a server before anything is upgraded."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from .site import Person, Site

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(240)]

HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "gpudev.ssh.raw.v1",
}


@pytest.fixture
def browser(site: Site, ada: Person) -> Iterator[httpx.Client]:
    """Somebody's browser, logged in at the server by a cookie."""
    address = f"{site.local}{site.base}"
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as http:
        http.get("/api/me", params={"token": site.server_token}).raise_for_status()
        assert http.cookies
        yield http


def code(answer: httpx.Response) -> tuple[int, str]:
    told = answer.json()["error"]["code"] if answer.status_code == httpx.codes.FORBIDDEN else ""
    return answer.status_code, told


@pytest.mark.parametrize("extra", [{}, {"Authorization": "token made-up"}, {"Cookie": "a=b"}])
def test_nobody_comes_in_without_a_login(site: Site, ada: Person, extra: dict[str, str]) -> None:
    address = f"{site.local}{site.base}/gpudev/ssh"
    answer = httpx.get(address, headers={**HANDSHAKE, **extra}, trust_env=False, timeout=30)
    assert code(answer) == (403, "not_authenticated")


def test_a_ticket_that_is_none(site: Site, ada: Person) -> None:
    address = f"{site.local}{site.base}/gpudev/ssh"
    for ticket in ("made-up", "t" * 129):
        headers = {**HANDSHAKE, "Gpudev-Ticket": ticket}
        answer = httpx.get(address, headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == 403


def test_another_sites_page_does_not_open_the_socket(site: Site, browser: httpx.Client) -> None:
    own = browser.get("/gpudev/ssh", headers={**HANDSHAKE, "Origin": site.local})
    assert code(own) == (403, "not_allowed")  # a login, of somebody who is not listed
    for origin in ("https://evil.example", f"{site.local}.evil.example", "null", "file://"):
        answer = browser.get("/gpudev/ssh", headers={**HANDSHAKE, "Origin": origin})
        assert code(answer) == (403, "not_authenticated"), origin

"""A request that is refused must not spoil the connection that the proxy shares among callers."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import httpx
import pytest

from gpudev_client import limits
from gpudev_service.api import bodies
from tests.fixtures.hub import RunningHub

from .site import Site

pytestmark = pytest.mark.hub


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "PROPFIND", "PATCH"])
def test_odd_methods_leave_the_next_caller_alone(running_hub: RunningHub, method: str) -> None:
    """Tornado closes a connection whose request it refuses early; the proxy kept it for others."""
    address = f"{running_hub.service}/api/v1/health/live"
    with httpx.Client(trust_env=False) as client:
        for _ in range(20):
            odd = client.request(method, address)
            assert odd.status_code < 500, odd.text
            assert client.get(address).status_code == 200


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "proxy"])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize("size", [100_000, 2_000_000, 20_000_000])
def test_a_body_that_is_too_large_is_answered_as_such(
    running_hub: RunningHub, size: int, announced: bool, direct: bool
) -> None:
    """One that is cut is answered by the proxy in its own words: 503."""
    token = running_hub.user("large")
    port = running_hub.ports.service
    service = f"{running_hub.ports.url(port)}/services/gpudev" if direct else running_hub.service
    with httpx.Client(trust_env=False, headers={"Authorization": f"token {token}"}) as client:
        content = b"x" * size if announced else iter([b"x" * size])
        answer = client.post(f"{service}/api/v1/reservations", content=content)
        assert answer.status_code == 413
        error = answer.json()["error"]
        assert (error["code"], error["accepted"]) == ("too_large", {"max_bytes": limits.BODY_MAX})
        content = b"x" * (size + 2**20) if announced else iter([b"x" * (size + 2**20)])
        page = client.post(f"{service}/disks", content=content)
        assert page.status_code == 413
        assert "larger than 1024 KiB" in page.text
        assert "X-Request-Id" in page.headers
        assert client.get(f"{service}/api/v1/me").status_code == 200


def test_what_nobody_would_wait_for_is_answered_while_it_comes(running_hub: RunningHub) -> None:
    token = running_hub.user("large")
    answer = httpx.post(
        f"{running_hub.service}/api/v1/reservations",
        content=(b"x" * 2**20 for _ in range(100)),
        headers={"Authorization": f"token {token}", "Content-Length": str(100 * 2**20)},
        trust_env=False,
        timeout=60,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_slow_sender_is_told_early_and_may_go_on(
    site: Site, running_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENT_SECONDS", 0)
    reader, writer = await _connect(site)
    half = b"x" * 300_000
    writer.write(_head(site, "POST", f"Content-Length: {2 * len(half)}") + half)
    status, _ = await _answer(reader)
    assert status == 401
    writer.write(half + _head(site, "GET"))
    assert (await _answer(reader))[0] == 401
    writer.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_who_asks_first_is_not_told_to_go_on(site: Site, running_hub: RunningHub) -> None:
    reader, writer = await _connect(site)
    announced = f"Content-Length: {bodies.PATIENT_MAX + 1}"
    writer.write(_head(site, "POST", announced, "Expect: 100-continue"))
    status, _ = await _answer(reader)
    assert status == 401
    writer.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_nobody_sends_without_end(
    site: Site, running_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "DROPPED_MAX", 1_000_000)
    reader, writer = await _connect(site)
    writer.write(_head(site, "POST", f"Content-Length: {bodies.PATIENT_MAX + 1}"))
    assert (await _answer(reader))[0] == 401
    with pytest.raises(ConnectionError):
        await _send_without_end(writer)


async def _connect(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(site.base)
    return await asyncio.open_connection(address.hostname, address.port)


async def _send_without_end(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


def _head(site: Site, method: str, *headers: str) -> bytes:
    path = f"{urlsplit(site.base).path}/api/v1/disks"
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer of a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    found = re.search(r"Content-Length: (\d+)", head)
    assert found, head
    return int(head.split()[1]), await reader.readexactly(int(found[1]))

"""Both drivers on a real network: the same flows, the same answers, the same errors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpcore._synchronization import ThreadLock

from gpudev_client import (
    AsyncClient,
    Client,
    Timeouts,
    _transport,
    config,
    errors,
    interrupts,
    models,
)
from gpudev_client.states import State
from tests.fixtures.certificates import self_signed

from .misbehaving import Behaviour, answer, misbehaving, slam, streamed
from .models import ID, event, reservation, sse

TOKEN = "0123456789abcdef-secret"
REQUEST = models.ReservationRequest(gpu_type="t4", hours=1)
OK = answer("200 OK", reservation().model_dump_json().encode(), "Content-Type: application/json")
Use = Callable[[Client | AsyncClient], Any]


def sync(url: str, use: Use, **options: Any) -> Any:
    with Client(url, TOKEN, pause=lambda _: None, **options) as client:
        result = use(client)
        return list(result) if isinstance(result, Iterator) else result


def from_asyncio(url: str, use: Use, **options: Any) -> Any:
    async def pause(_: float) -> None:
        return None

    async def run() -> Any:
        async with AsyncClient(url, TOKEN, pause=pause, **options) as client:
            result = use(client)
            if isinstance(result, Awaitable):
                return await result
            return [item async for item in result]

    return asyncio.run(run())


@pytest.fixture(params=[sync, from_asyncio], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    driver: Callable[..., Any] = request.param
    return driver


@pytest.mark.parametrize(
    "failure",
    [
        slam,
        answer("200 OK", b'{"id": "abc', length=5000),
        answer("503 Service Unavailable", b"<html>"),
        answer("502 Bad Gateway", b""),
    ],
    ids=["no answer", "cut answer", "503", "502"],
)
def test_a_mutating_call_survives_a_failure_under_one_key(
    run: Callable[..., Any], failure: Behaviour
) -> None:
    with misbehaving(failure, failure, OK) as server:
        made = run(server.url, lambda c: c.reserve(REQUEST))
    assert made == reservation()
    assert len(server.requests) == 3
    keys = {m for r in server.requests for m in re.findall(r"(?i)idempotency-key: (\S+)", r)}
    assert len(keys) == 1
    assert len({r.partition("\r\n\r\n")[2] for r in server.requests}) == 1
    assert all(f"authorization: token {TOKEN}" in r.lower() for r in server.requests)


def test_nobody_there_is_told_in_a_sentence(run: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(errors.Unreachable, match="cannot be reached") as caught:
        run(f"http://127.0.0.1:{port}/services/gpudev", lambda c: c.me())
    assert TOKEN not in str(caught.value)


def test_a_redirect_takes_no_token_elsewhere(run: Callable[..., Any]) -> None:
    with misbehaving() as other:
        away = answer("307 Temporary Redirect", b"", f"Location: {other.url}/api/v1/me")
        with misbehaving(away) as server, pytest.raises(errors.GpuDevError) as caught:
            run(server.url, lambda c: c.me())
    assert other.requests == []
    assert isinstance(caught.value, errors.ServerFault)
    assert "redirects" in str(caught.value)


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_certificate_that_nobody_signed_gets_no_token(
    run: Callable[..., Any], tmp_path: Path, scheme: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path, "IP:127.0.0.1"))
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the client's refusal, or the end of the test
                while True:
                    connection, _ = server.accept()
                    with (
                        connection,
                        contextlib.suppress(ssl.SSLError),
                        context.wrap_socket(connection, server_side=True) as tls,
                    ):
                        asked.append(tls.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/services/gpudev"
        try:
            with pytest.raises(errors.Unreachable):
                run(url, lambda c: c.me())
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert not any(asked)


def test_an_answer_that_never_ends_is_given_up(run: Callable[..., Any]) -> None:
    half = answer("200 OK", b"{", length=100)

    def keep(connection: socket.socket) -> None:
        half(connection)
        connection.recv(1)  # until the client has hung up

    with misbehaving(*[keep] * 5) as server, pytest.raises(errors.Unreachable, match="in time"):
        run(server.url, lambda c: c.me(), timeouts=Timeouts(connect=5, read=0.05))
    assert len(server.requests) == 5


def test_an_answer_that_is_too_long_is_not_kept(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport, "ANSWER_MAX", 1000)
    with (
        misbehaving(answer("200 OK", b" " * 5000)) as server,
        pytest.raises(errors.ServerFault, match="too long"),
    ):
        run(server.url, lambda c: c.me())


def test_events_go_on_after_a_cut(run: Callable[..., Any]) -> None:
    first, second, last = event(1), event(2), event(3, State.CANCELLED)
    with misbehaving(
        streamed(sse(first), b": still there\n\n", sse(second)[:40]),
        answer("503 Service Unavailable", b""),
        streamed(sse(second, last)),
    ) as server:
        seen = run(server.url, lambda c: c.events(ID))
    assert [e.id for e in seen] == [1, 2, 3]
    told = [re.findall(r"(?i)last-event-id: (\S+)", r) for r in server.requests]
    assert told == [[], ["1"], ["1"]]


def test_a_list_crosses_pages(run: Callable[..., Any]) -> None:
    pages = [{"items": [], "next_cursor": "next one"}, {"items": [], "next_cursor": None}]
    with misbehaving(*(answer("200 OK", json.dumps(p).encode()) for p in pages)) as server:
        assert run(server.url, lambda c: c.disks().all()) == []
    assert "cursor=next+one" in server.requests[1] or "cursor=next%20one" in server.requests[1]


def test_tokens_are_in_no_representation() -> None:
    client = Client("https://hub.example/services/gpudev", TOKEN)
    assert TOKEN not in repr(client)
    assert TOKEN not in repr(vars(client))
    assert TOKEN not in repr(config.Settings("https://hub.example", TOKEN, "given", "given"))
    assert TOKEN not in repr(config.Stored("https://hub.example", {"https://hub.example": TOKEN}))
    client.close()


@pytest.mark.parametrize("nth", range(1, 7))
def test_an_interruption_while_a_lock_is_held_does_not_hang(
    monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    times = itertools.count(1)

    def strike() -> None:
        if next(times) == nth:
            signal.raise_signal(signal.SIGINT)

    def enter(lock: ThreadLock) -> ThreadLock:
        assert lock._lock.acquire(timeout=5), "nobody gives it back"
        strike()
        return lock

    def leave(lock: ThreadLock, *_: Any) -> None:
        strike()
        lock._lock.release()

    with misbehaving(OK, OK) as server, Client(server.url, TOKEN) as client:
        # The answer ends the wait, so that the server is never left with half a question.
        monkeypatch.setattr(interrupts, "LOOK", 60)
        monkeypatch.setattr(ThreadLock, "__enter__", enter)
        monkeypatch.setattr(ThreadLock, "__exit__", leave)
        with pytest.raises(KeyboardInterrupt):
            client.reservation(ID)
        assert client.reservation(ID) == reservation()


def test_a_proxy_of_the_environment_does_not_see_loopback(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    with misbehaving() as proxy, misbehaving(OK) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        run(server.url, lambda c: c.reservation(ID))
    assert proxy.requests == []

"""The browser login: what the listener believes, and the whole way with a service's real codes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import limits, models
from gpudev_client.cli.app import Refused
from gpudev_client.cli.browser import Answer, Login, read_answer, receive

SERVICE = "https://hub.example.org/services/gpudev"
STATE = "a-state-of-enough-characters"


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (f"/callback?code=abc&state={STATE}", Answer("abc")),
        (f"/callback?state={STATE}&code=abc&extra=1", Answer("abc")),
        (f"/callback?error=refused&state={STATE}", Answer(None, refused=True)),
        (f"/callback?code=abc&state={STATE}x", None),
        (f"/callback?code=abc&state={STATE[:-1]}", None),
        ("/callback?code=abc", None),
        ("/callback?code=abc&state=", None),
        (f"/callback?code=abc&state=x&state={STATE}", None),
        (f"/callback?code=abc&code=def&state={STATE}", None),
        (f"/callback?state={STATE}", None),
        (f"/?code=abc&state={STATE}", None),
        (f"/callback/x?code=abc&state={STATE}", None),
        ("/favicon.ico", None),
    ],
)
def test_only_the_right_answer_is_believed(target: str, answer: Answer | None) -> None:
    assert read_answer(target, STATE) == answer


@given(st.text() | st.just("//[/callback"))
def test_no_target_breaks_the_listener(target: str) -> None:
    assert read_answer(target, STATE) is None


def test_an_attempt_fits_the_protocol() -> None:
    attempt = Login.fresh()
    parts = urlsplit(attempt.address(SERVICE, 12345))
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{SERVICE}/cli-login"
    assert query["port"] == "12345"
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,128}", query["state"])
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", query["challenge"])
    digest = hashlib.sha256(attempt.verifier.encode()).digest()
    assert base64.urlsafe_b64decode(query["challenge"] + "=") == digest
    assert attempt.verifier not in attempt.address(SERVICE, 1)
    assert attempt.verifier not in repr(attempt)
    models.CliTokenRequest(code="x" * 22, verifier=attempt.verifier)
    assert Login.fresh().state != attempt.state
    assert len(query.get("name", "")) <= limits.NAME_MAX


def ask(port: int, *targets: str) -> list[tuple[int, str]]:
    answers = []
    for target in targets:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", target)
        response = connection.getresponse()
        answers.append((response.status, response.read().decode()))
        connection.close()
    return answers


def in_background(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_listener_takes_one_right_answer_among_wrong_ones() -> None:
    attempt = Login.fresh()
    answers: list[tuple[int, str]] = []
    with receive(attempt) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as rude:
            rude.sendall(b"GET /callback?co")  # and gone
        targets = (
            "/favicon.ico",
            "/callback?code=stolen&state=guessed",
            f"/callback?code=right&state={attempt.state}",
        )
        browser = in_background(lambda: answers.extend(ask(listener.port, *targets)))
        assert listener.wait() == "right"
        browser.join()
        port = listener.port
    assert [status for status, _ in answers] == [404, 404, 200]
    assert "right" not in answers[-1][1]
    with pytest.raises(ConnectionRefusedError):
        ask(port, targets[-1])


def test_a_refusal_in_the_browser_ends_the_login() -> None:
    attempt = Login.fresh()
    with receive(attempt) as listener:
        browser = in_background(
            lambda: ask(listener.port, f"/callback?error=refused&state={attempt.state}")
        )
        with pytest.raises(Refused, match="refused"):
            listener.wait()
        browser.join()


def test_guessing_is_bounded() -> None:
    with receive(Login.fresh()) as listener:
        targets = [f"/callback?code=x&state={number}" for number in range(50)]
        browser = in_background(lambda: ask(listener.port, *targets))
        with pytest.raises(Refused, match="too many"):
            listener.wait()
        browser.join()


def test_nobody_confirms() -> None:
    with receive(Login.fresh(), patience=0) as listener, pytest.raises(Refused, match="in time"):
        listener.wait()

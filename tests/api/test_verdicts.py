"""The judge of made-up calls sees what it is there for."""

from __future__ import annotations

import json

import httpx
import pytest

from .conformity import complaints_of_stream
from .target import Sent
from .verdicts import wrong_with

GOOD = {
    "X-Request-Id": "0" * 16,
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}
JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
REFUSAL = {"error": {"code": "not_found", "message": "", "field": None, "accepted": None}}


def judged(
    target: str, status: int, text: str, headers: dict[str, str], caller: str = "stranger"
) -> str:
    request = httpx.Request("GET", f"http://hub/services/gpudev{target}")
    answer = httpx.Response(status, headers=GOOD | headers, text=text, request=request)
    answer.headers.update(headers)
    sent = Sent(caller, "GET", target)
    found = wrong_with(sent, answer, secrets=[b"s3cret"], inside=[b"/srv/gpudev"])
    return "\n".join(found[:-1])


def refusal(message: str) -> str:
    return json.dumps({"error": REFUSAL["error"] | {"message": message}})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("fine", ""),
        ("Traceback (most recent call last)", "Traceback"),
        ("SELECT id FROM disks", "SELECT"),
        ("in /srv/gpudev/disks", "/srv/gpudev"),
        ("token s3cret", "secret"),
        ("quince has it", "tells stranger of quince"),
    ],
)
def test_what_an_answer_tells(message: str, said: str) -> None:
    found = judged("/api/v1/disks/x", 404, refusal(message), JSON)
    assert said in found if said else not found


def test_what_the_caller_has_said_may_be_repeated() -> None:
    assert not judged("/api/v1/disks?user=quince", 403, refusal("not quince"), JSON)
    assert "quince" not in judged("/api/v1/disks", 403, refusal("not quince"), JSON, "owner")


@pytest.mark.parametrize(
    ("target", "status", "text", "headers", "said"),
    [
        ("/api/v1/me", 500, refusal(""), JSON, "answered with 500"),
        ("/api/v1/me", 418, refusal(""), JSON, "418 is not described"),
        ("/api/v1/me", 200, "{}", JSON, "required"),
        ("/api/v1/me", 200, "{}", HTML, "came as"),
        ("/api/v1/nowhere", 404, "no", JSON, "no JSON"),
        ("/api/v1/nowhere", 200, refusal(""), JSON, "where there is nothing"),
        ("/metrics", 200, "x 1", HTML, "metrics came as"),
        ("/fleet", 200, "<p>", JSON, "a page came as"),
        ("/fleet", 200, "<gpudev-fuzz>", HTML, "an element of the page"),
        ("/fleet", 200, "<script>1</script>", HTML, "without a nonce"),
        ("/fleet", 200, "<a href='javascript:1'>", HTML, "a with href"),
        ("/disks", 302, "", HTML | {"Location": "//evil.example"}, "leads to"),
        ("/disks", 302, "", HTML | {"Location": "https://evil.example"}, "leads to"),
        ("/disks", 302, "", HTML | {"Location": "/hub/"}, ""),
        ("/fleet", 200, "<p>", HTML | {"X-Content-Type-Options": "no"}, "sniffed"),
        ("/fleet", 200, "<p>", HTML | {"Server": "tornado"}, "what serves it"),
    ],
)
def test_which_form_an_answer_has(
    target: str, status: int, text: str, headers: dict[str, str], said: str
) -> None:
    found = judged(target, status, text, headers)
    assert said in found if said else not found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (": still there\n\n", ""),
        ("data: {}\n\n", "no message"),
        ('id: 1\ndata: {"id": 1}\n\n', "required"),
        ("id: 1\ndata: {\n\n", "no JSON"),
    ],
)
def test_which_form_an_event_has(text: str, said: str) -> None:
    found = "\n".join(complaints_of_stream(text))
    assert said in found if said else not found

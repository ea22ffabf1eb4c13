"""What is ours is judged, and what is not ours is not hidden; each line of a log has its writer."""

from __future__ import annotations

import math

import pytest

from benchmarks import r12, revocation
from benchmarks.anonymous import HUB, SERVICE, Ask
from benchmarks.r12 import PROXY, Figure, Flood, judged, verdict, whose

OURS = Figure("service-memory", 50.0, 50.0, "MB", ours=True)
OURS_BEYOND = Figure("service-memory", 50.1, 50.0, "MB", ours=True)
THEIRS_BEYOND = Figure("hub-log", 1025.0, 1024.0, "B", ours=False)


def flood(**of_service: float) -> Flood:
    values = {"ratio": 1.0, "grown": 1.0, "written": 100, **of_service}
    return Flood(
        rate=300.0,
        ratio={SERVICE: values["ratio"], HUB: 1.0},
        grown={SERVICE: values["grown"], HUB: 1.0, PROXY: 1.0},
        written={SERVICE: int(values["written"]), HUB: 100, PROXY: 20},
        asked={SERVICE: 10, HUB: 10},
    )


def test_what_is_ours_decides() -> None:
    assert verdict([OURS], full=True) == "met; beyond by Hub and proxy themselves: nothing"
    assert verdict([OURS, OURS_BEYOND], full=True).startswith(
        "missed; beyond: service-memory=50.10"
    )


def test_what_is_the_hubs_is_said_beside_it() -> None:
    said = verdict([OURS, THEIRS_BEYOND], full=True)
    assert said == "met; beyond by Hub and proxy themselves: hub-log=1025B"


def test_no_small_size_meets_a_goal() -> None:
    assert verdict([OURS], full=False).startswith("missed (within, in this size);")
    assert verdict([OURS_BEYOND], full=False).startswith("missed; beyond:")


def test_the_worst_of_both_floods_counts() -> None:
    done = [flood(grown=51.0), flood(ratio=3.0, written=20_480)]
    figures = {each.name: each for each in judged(done, {SERVICE: 227.0, HUB: 4208.0})}
    beyond = {name for name, each in figures.items() if not each.good}
    assert beyond == {"service-p99", "service-log", "service-memory", "hub-log-of-one"}
    assert {each.ours for name, each in figures.items() if name.startswith("service")} == {True}
    assert {each.ours for name, each in figures.items() if name.startswith(("hub", "proxy"))} == {
        False
    }
    assert figures["proxy-log"].value == 1.0


def test_the_slowest_of_each_kind_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {
        "removed: SSH": [0.1, 0.3],
        "removed: token": [0.2],
        "removed: token at the service": [4.9, 5.1],
        "ended: kernel of the owner": [math.inf],
    }
    monkeypatch.setattr(revocation, "measure", lambda: seconds)
    figures = r12.revoked()
    assert [str(each) for each in figures] == [
        "removed-SSH=0.30s",
        "removed-token=5.10s",
        "ended-kernel=infs",
    ]
    assert [each.good for each in figures] == [True, False, False]


@pytest.mark.parametrize(
    ("part", "line", "writer"),
    [
        ("hub", b'{"at": "2026-01-01T00:00:00+00:00", "level": "info"}\n', SERVICE),
        ("hub", b"[I 2026-01-01 00:00:00.000 JupyterHub log:192] 200 GET /hub/api\n", HUB),
        ("hub", b"{\n", HUB),
        ("hub", b'  "Host": "127.0.0.1"\n', HUB),
        ("proxy", b'{"level": "info"}\n', PROXY),
    ],
)
def test_each_line_has_its_writer(part: str, line: bytes, writer: str) -> None:
    assert whose(part, line) == writer


def test_a_form_has_its_length() -> None:
    sent = Ask(HUB, "a login", "/hub/login", "username=a", ("Cookie: _xsrf=1",)).head("host:1")
    assert sent.startswith(b"POST /hub/login HTTP/1.1\r\nHost: host:1\r\n")
    assert b"\r\nContent-Length: 10\r\n\r\nusername=a" in sent
    assert Ask(SERVICE, "nothing", "/x").head("host:1").endswith(b"\r\nConnection: close\r\n\r\n")

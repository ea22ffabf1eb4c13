"""Calls that a machine makes up: none breaks the service, and no answer tells too much.

Each route of the OpenAPI document gets values that the document allows and values that it forbids;
pages get fields of forms, and what is at no address is asked for too. Each is sent as several kinds
of caller, about things that are there and things that are not. `FUZZ=200` makes up so many for each
route and kind, and sends each as every caller.

A call that is answered wrongly is left in `.artifacts/fuzz`, in its smallest form. Moved to
`corpus` beside this file, it is sent again by every run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from gpudev_service.api.route import METHODS
from gpudev_service.api.routes import ROUTES
from gpudev_service.pages.rendering import STATIC
from tests.fixtures.hub import RunningHub
from tests.pages.matrix import Page, pages
from tests.tiers import ROOT

from .conformity import SPEC
from .target import API, CONFIG, UNSEEN, Sent, Target
from .verdicts import MARKUP, wrong_with

pytestmark = [pytest.mark.hub, pytest.mark.slow]

#: Characters of an address that reaches the service: the proxy refuses one with more than 16 KB of
#: headers, and goes away while it still comes.
LONGEST = 12_000
EXAMPLES = int(os.environ.get("FUZZ", "2"))
CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.json"))
FOUND = ROOT / ".artifacts" / "fuzz"
SCHEMA = schemathesis.openapi.from_dict(SPEC)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
NAMES = [route.name for route in ROUTES]
CHANGING = {route.name for route in ROUTES if route.mutating}
#: Headers of the tool that made a call up.
_ITS_OWN = {"user-agent", "accept", "accept-encoding", "connection", "content-length"}
_EVERY = tuple(UNSEEN)
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES < 10,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def callers(number: int) -> st.SearchStrategy[tuple[str, ...]]:
    """Who send a call of this number: in the everyday size every other one, these or those."""
    first = number % 2
    halves = [_EVERY[first::2], _EVERY[1 - first :: 2]]
    return st.sampled_from(halves if EXAMPLES < 10 else [_EVERY])


@pytest.fixture(scope="module")
def running_target() -> Iterator[Target]:
    hub = RunningHub(service_config=CONFIG)
    try:
        hub.start()
        target = Target(hub)
        yield target
        target.close()
    finally:
        hub.remove()


@pytest.fixture
def target(running_target: Target) -> Target:
    running_target.renew()
    return running_target


def check(target: Target, name: str, sent: Sent) -> httpx.Response:
    """Sends it; what is answered wrongly is kept as a file, the smallest last."""
    answer = target.send(sent)
    wrong = wrong_with(sent, answer, secrets=target.secrets, inside=target.inside())
    if wrong:
        FOUND.mkdir(parents=True, exist_ok=True)
        (FOUND / f"{name}.json").write_text(sent.kept(target.names))
    assert not wrong, "\n".join([*wrong, f"kept as {FOUND.relative_to(ROOT)}/{name}.json"])
    return answer


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_kept_call_is_answered_well(target: Target, path: Path) -> None:
    sent, status = Sent.read(path, target.names)
    answer = check(target, f"kept-{path.stem}", sent)
    assert status in {None, answer.status_code}, answer.text


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("name", NAMES)
def test_made_up_calls_are_answered_as_the_document_says(
    target: Target, name: str, mode: GenerationMode
) -> None:
    operation = SCHEMA.find_operation_by_id(name)
    assert operation is not None

    @SETTINGS
    @given(
        case=operation.as_strategy(generation_mode=mode),
        choice=st.integers(0, 7),
        those=callers(NAMES.index(name)),
    )
    def call(case: Any, choice: int, those: tuple[str, ...]) -> None:
        if choice:  # mostly about something that is there
            _name_what_is_there(case, target, choice, changes=name in CHANGING)
        for caller in those:
            sent = _sent(case, caller)
            assume(len(sent.target) <= LONGEST)
            try:
                check(target, f"{name}-{mode.name.lower()}", sent)
            except httpx.LocalProtocolError:
                reject()  # no HTTP

    try:
        call()
    except Unsatisfiable:  # a call without any parameter has none that the document forbids
        assert mode is GenerationMode.NEGATIVE


def _name_what_is_there(case: Any, target: Target, choice: int, *, changes: bool) -> None:
    body = case.body if isinstance(case.body, dict) else {}
    # What is made or renamed keeps its made-up name.
    parts = (
        case.path_parameters or {},
        case.query or {},
        {k: v for k, v in body.items() if k != "name"},
    )
    for part, whole in zip(parts, (parts[0], parts[1], body), strict=True):
        for parameter in part:
            if known := target.known(parameter, changes=changes):
                whole[parameter] = known[choice % len(known)]


def _sent(case: Any, caller: str) -> Sent:
    made = case.as_transport_kwargs(base_url="http://gpudev")
    kept = {"method", "url", "headers", "params", "json", "data", "cookies", "files"}
    ready = requests.Request(**{k: v for k, v in made.items() if k in kept}).prepare()
    parts = urlsplit(str(ready.url))
    # A made-up login is nobody's.
    left_out = _ITS_OWN if caller == "anonymous" else _ITS_OWN | {"authorization"}
    headers = tuple(
        (_text(name), _text(value))
        for name, value in ready.headers.items()
        if _text(name).lower() not in left_out and not _text(name).startswith("X-Schemathesis")
    )
    body: Any = ready.body or b""
    raw = body.encode() if isinstance(body, str) else bytes(body)
    target = API + parts.path + (f"?{parts.query}" if parts.query else "")
    return Sent(caller, str(ready.method), target, headers, raw)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


#: Fields of all forms and addresses of pages, from the templates, and what stands there.
FIELDS = sorted(
    {
        name
        for path in (STATIC.parent / "templates").glob("*.html")
        for name in re.findall(r'name="([a-z_]+)"', path.read_text())
    }
    | {"cursor", "live", "first", "limit", "path", "size_gb", "reason", "message", "next"}
)
_ODD = [
    "",
    "0",
    "-1",
    "1e999",
    "NaN",
    "a\0b",
    MARKUP,
    f'"{MARKUP}',
    "//evil.example",
    "../..",
    "é" * 300,
]
VALUES = st.one_of(
    st.sampled_from(["1", "2", "confirm", "refuse", "use", "all", "live", "x" * 43, "8080", "t4"]),
    st.sampled_from(_ODD),
    st.text(max_size=20),
)
ARGUMENTS = st.dictionaries(
    st.one_of(st.sampled_from(FIELDS), st.text(max_size=5)), VALUES, max_size=5
)


@pytest.mark.parametrize("page", list(pages()), ids=str)
def test_made_up_visits_show_a_page(target: Target, page: Page) -> None:
    kind = {"reservations": "id", "admin": "node"}.get(page.path.split("/")[0], "name")
    known = target.known(kind, changes=page.method == "POST")

    @SETTINGS
    @given(
        part=st.one_of(st.sampled_from(known), VALUES.filter(bool)),
        query=ARGUMENTS,
        form=ARGUMENTS,
        those=callers(len(page.path)),
    )
    def visit(
        part: str, query: dict[str, str], form: dict[str, str], those: tuple[str, ...]
    ) -> None:
        asked = urlencode(query, errors="replace")
        address = "/" + page.path.format(quote(part, safe="", errors="replace"))
        body = urlencode(form, errors="replace").encode() if page.method == "POST" else b""
        headers = [("Sec-Fetch-Mode", "navigate")]
        if page.method == "POST":
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        for caller in those:
            sent = Sent(caller, page.method, f"{address}?{asked}", tuple(headers), body)
            check(target, f"{page.method}-page-{re.sub('[^a-z]+', '-', page.path)}", sent)

    visit()


@pytest.mark.parametrize("base", ["", API, f"{API}/reservations", f"{API}/disks", "/static"])
def test_made_up_addresses_are_not_there(target: Target, base: str) -> None:
    @SETTINGS
    @given(
        method=st.sampled_from([*METHODS, "OPTIONS", "EXTEND"]),
        parts=st.lists(st.one_of(st.text(max_size=12), st.sampled_from(_ODD)), max_size=4),
        caller=st.sampled_from(sorted(UNSEEN)),
    )
    def visit(method: str, parts: list[str], caller: str) -> None:
        path = "/".join(quote(part, safe="", errors="replace") for part in parts)
        check(target, "addresses", Sent(caller, method, f"{base}/{path}"))

    visit()


@pytest.mark.parametrize("caller", UNSEEN)
def test_streams_and_metrics_tell_each_caller_what_is_theirs(target: Target, caller: str) -> None:
    """At the end, since streams tell what all the calls before have done."""
    check(target, "metrics", Sent(caller, "GET", "/metrics"))
    for path in ("/events", *(f"/reservations/{key}/events" for key in target.names.values())):
        began = check(target, "stream", Sent(caller, "GET", API + path))
        newest = re.search(r"^id: (\d+)$", began.text, re.MULTILINE)
        if began.status_code == 200 and newest is not None:
            before = max(0, int(newest[1]) - 400)
            back = (("Last-Event-ID", str(before)),)
            check(target, "stream", Sent(caller, "GET", API + path, back))

"""What is wrong with an answer, whatever was asked: its form, and what it tells.

The service answers in four ways: JSON and event streams as the OpenAPI document says, metrics, and
pages with their redirects. Each has a form, and none tells of the inside of a program, of this
installation, or of somebody's things that the caller may not see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import httpx
from bs4 import BeautifulSoup
from prometheus_client.parser import text_string_to_metric_families

from gpudev_service.api.documents import METRICS
from gpudev_service.api.route import Route
from gpudev_service.api.routes import ROUTES
from gpudev_service.errors import CODES

from .conformity import complaints, complaints_of_error, complaints_of_stream
from .target import API, UNSEEN, Sent

#: What only comes out of the inside of a program.
INSIDE = re.compile(
    rb'Traceback \(|File "|sqlalchemy|sqlite3|psycopg|site-packages|0x7f[0-9a-f]{8}'
    rb"|\b(?:SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b"
)
#: Stands in what is sent to pages; it is no element of any page.
MARKUP = "<gpudev-fuzz>"
_REDIRECTS = {302, 303}
_PAGE_STATUSES = {200, *_REDIRECTS, 400, 401, 403, 404, 405, 409, 413, 422}
#: Where the login of the command line leads back to.
_CALLBACK = re.compile(r"http://127\.0\.0\.1:\d+/callback\?")


def wrong_with(
    sent: Sent,
    answer: httpx.Response,
    *,
    secrets: Iterable[bytes] = (),
    inside: Iterable[bytes] = (),
) -> list[str]:
    """Everything that is wrong. `inside` are paths and addresses that none but the spawner, who is
    told how to start a server, has a use for."""
    route = route_of(sent.method, answer)
    found = [*_form(sent, route, answer), *_headers(answer)]
    told = answer.content + str(answer.headers.get("Location", "")).encode()
    if mark := INSIDE.search(told):
        found.append(f"tells {mark[0]!r}")
    found += [f"tells the secret {one[:4]!r}..." for one in secrets if one in told]
    if route is None or route.name != "launch_server":
        found += [f"tells {one!r}" for one in inside if one in told]
    said = sent.words
    found += [
        f"tells {sent.caller} of {word}"
        for word in sorted(UNSEEN[sent.caller])
        if word.encode() in told and word not in said
    ]
    if found:
        asked = f"{sent.method} {sent.target} as {sent.caller}"
        found.append(f"{asked}: {answer.status_code} {answer.content[:500]!r}")
    return found


def route_of(method: str, answer: httpx.Response) -> Route | None:
    """The route of the API that a call has come to."""
    path = _path(answer)
    if not path.startswith(API):
        return None
    below = path.removeprefix(API)
    fitting = (one for one in ROUTES if one.method == method and one.match(below) is not None)
    return next(fitting, None)


def _path(answer: httpx.Response) -> str:
    """Below the service's address, as it was sent."""
    raw = urlsplit(answer.request.url.raw_path.decode()).path
    return raw.partition("/services/gpudev")[2]


def _form(sent: Sent, route: Route | None, answer: httpx.Response) -> list[str]:
    path, status = _path(answer), answer.status_code
    if status >= CODES["internal"]:
        return [f"answered with {status}"]
    if status == CODES["bad_request"] and not answer.content:
        return []  # the HTTP server cannot read it
    form: Callable[[httpx.Response], list[str]] = _page
    if path == "/metrics":
        form = _metrics
    elif path == API or path.startswith(f"{API}/"):
        return _nowhere(answer) if route is None else _route(route, answer)
    return form(answer)


def _route(route: Route, answer: httpx.Response) -> list[str]:
    kind, status = answer.headers.get("Content-Type", ""), answer.status_code
    if route.stream and status == 200:
        found = [] if kind == route.media else [f"a stream came as {kind!r}"]
        return found + complaints_of_stream(answer.text)
    if route.stream and status == 204:
        return ["a body with 204"] if answer.content else []
    if kind != "application/json":
        return [f"came as {kind!r}"]
    return complaints(route.name, status, answer.content)


def _nowhere(answer: httpx.Response) -> list[str]:
    """No route has this address, or not this method."""
    known = answer.status_code in {CODES["not_found"], CODES["unknown_action"]}
    found = [] if known else [f"{answer.status_code} where there is nothing"]
    return found + complaints_of_error(answer.content)


def _metrics(answer: httpx.Response) -> list[str]:
    if answer.status_code != 200:
        wanted = {CODES[code] for code in METRICS.codes} | {CODES["unknown_action"]}
        found = [] if answer.status_code in wanted else [f"metrics: {answer.status_code}"]
        return found + complaints_of_error(answer.content)
    if answer.headers["Content-Type"] != METRICS.media:
        return [f"metrics came as {answer.headers['Content-Type']!r}"]
    return [] if list(text_string_to_metric_families(answer.text)) else ["no metrics"]


def _page(answer: httpx.Response) -> list[str]:
    kind, status = answer.headers.get("Content-Type", ""), answer.status_code
    if status not in _PAGE_STATUSES:
        return [f"a page with {status}"]
    if status in _REDIRECTS:
        return _redirect(answer.headers["Location"])
    if kind == "text/plain; charset=utf-8" and status != 200:
        return []  # a part of a page, fetched by our script
    if kind != "text/html; charset=utf-8":
        return [f"a page came as {kind!r}"]
    return _html(answer.text)


def _redirect(location: str) -> list[str]:
    """Redirects stay on this host, but for the one to the command line."""
    ours = location.startswith("/") and not re.match(r"/[/\\]|.*[\x00-\x20]", location)
    return [] if ours or _CALLBACK.match(location) else [f"leads to {location!r}"]


def _html(text: str) -> list[str]:
    soup = BeautifulSoup(text, "html.parser")
    found = ["a part of the call is an element of the page"] if MARKUP in text else []
    for element in soup.find_all(True):
        if element.name in {"script", "style"} and not element.get("nonce"):
            found.append(f"{element.name} without a nonce")
        for name, value in element.attrs.items():
            if name.startswith("on") or str(value).lower().startswith("javascript:"):
                found.append(f"{element.name} with {name}={value!r}")
    return found


def _headers(answer: httpx.Response) -> list[str]:
    headers = answer.headers
    if answer.status_code == CODES["bad_request"] and not answer.content:
        return []
    found = [
        f"no {name}" for name in ("X-Request-Id", "Content-Security-Policy") if name not in headers
    ]
    if headers.get("X-Content-Type-Options") != "nosniff":
        found.append("may be sniffed")
    if "Server" in headers:
        found.append("tells what serves it")
    return found

"""`docs/users/api.md`, from the route table and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpudev_client import limits
from gpudev_service.api.openapi import document
from gpudev_service.api.route import Access, Route
from gpudev_service.api.routes import BASE, ROUTES
from gpudev_service.errors import CODES
from gpudev_service.loops import retention

from .markdown import NOTICE, anchor, code, paragraphs, table
from .schemas import bounds, default, is_page, linked, type_of

#: Codes of more calls than this are not listed with all of them.
_MANY = 4

_INTRODUCTION = f"""\
# The REST API

The API is below `/services/gpudev{BASE}` of the Hub. The service describes it in OpenAPI at
`/services/gpudev{BASE}/openapi.json`; this page is made from the same table.

**Who calls.** `Authorization: token ...` (or `Bearer ...`) with a token of the Hub; the browser's
login at the service works too. A token in the address is refused. What a token may do is decided
by its scopes alone: `custom:gpudev:read`, `custom:gpudev:reserve`, `custom:gpudev:admin` and
`custom:gpudev:spawner`, each for everybody's things or narrowed with `!user=`, `!group=` or
`!server=`. What does not exist and what the caller may not see get the same answer, 404.

**Values.** Times are UTC in ISO 8601. Hours are numbers and kept as given: `0.5` is 30 minutes. A
field of a request that the API does not know is refused; a client should ignore fields of an
answer that it does not know. A request's body is JSON of at most {limits.BODY_MAX // 1024} KiB.

**Lists** are pages: `items` and `next_cursor`, which is null on the last page. Give it back as
`cursor` for the next one. `limit` is {limits.PAGE_DEFAULT} by default and {limits.PAGE_MAX} at
most.

**Retries.** A mutating call with an `Idempotency-Key` (8 to 128 visible ASCII characters, a new
one for each request) is done once: a repeated one is answered as the first was, with
`Idempotent-Replay: true`. Keys are remembered for {retention.KEYS_KEPT.days * 24} hours.

**Events** are server-sent events. A stream begins with the present state of each reservation
(kind `present`), so a reader who missed events has lost nothing; each message carries the
reservation's whole state. `Last-Event-ID` brings what was missed first.

**Errors** have the form of [ErrorAnswer](#erroranswer). `code` is stable and for programs,
`message` is for people, `field` and `accepted` say what to change. Each answer has an
`X-Request-Id` by which the operator finds it in the log.
"""


def page() -> str:
    described = document(ROUTES, f"/services/gpudev{BASE}")
    parts = [
        NOTICE,
        _INTRODUCTION,
        "## All calls\n",
        table(("call", "what it does"), _index()) + "\n",
        *(_call(route, described) for route in ROUTES),
        _refusals(),
        "\n## Models\n",
        *_models(described["components"]["schemas"]),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _refusals() -> str:
    """Every code with its status, and where it can come from."""
    rows = [(code(name), str(status), _where(name)) for name, status in CODES.items()]
    return "## Refusals\n\n" + table(("code", "status", "which calls"), rows)


def _where(name: str) -> str:
    """The widest set of calls that can all be refused with this code, in words."""
    kinds: dict[str, Callable[[Route], bool]] = {
        "all": lambda route: True,
        "all that need a token": lambda route: route.access is not Access.PUBLIC,
        "all that change something": lambda route: route.mutating,
    }
    for words, kind in kinds.items():
        if all(name in route.codes for route in ROUTES if kind(route)):
            return words
    if name == "unknown_action":
        return "a method that the path does not have"
    named = [route for route in ROUTES if name in route.codes]
    if len(named) > _MANY:
        return "where it is named"
    return ", ".join(f"[{_title(route)}](#{anchor(_title(route))})" for route in named)


def _title(route: Route) -> str:
    return f"{route.method} {route.path}"


def _index() -> Iterator[tuple[str, str]]:
    for route in ROUTES:
        yield f"[`{_title(route)}`](#{anchor(_title(route))})", route.summary


def _call(route: Route, described: dict[str, Any]) -> str:
    operation = described["paths"][route.path][route.method.lower()]
    lines = [f"### {_title(route)}", route.summary, f"Who may call: {operation['description']}"]
    asked = [
        (
            code(parameter["name"]),
            f"{parameter['in']}, {type_of(parameter['schema'])}",
            default(parameter["schema"], parameter["required"]),
            _told(parameter.get("description", ""), bounds(parameter["schema"])),
        )
        for parameter in operation["parameters"]
        if parameter["in"] == "query"
    ]
    if asked:
        lines.append(table(("parameter", "type", "default", "meaning"), asked))
    if "requestBody" in operation:
        lines.append(f"Body: {_model(operation['requestBody'])}.")
    lines.append(f"Answer: {_answer(route, operation)}")
    own = {*route.errors, *({"not_found"} if route.parameters else ())}
    if own:
        names = ", ".join(code(name) for name in CODES if name in own)
        lines.append(f"Refusals beside [those of every call](#refusals): {names}.")
    return "\n\n".join(lines) + "\n"


def _model(part: dict[str, Any]) -> str:
    schema = next(iter(part["content"].values()))["schema"]
    return type_of(schema)


def _answer(route: Route, operation: dict[str, Any]) -> str:
    if route.stream:
        return f"{route.status}, a stream of {linked('Event')}."
    if route.answer is None:
        return f"{route.status}, `{route.media}`."
    return f"{route.status}, {_model(operation['responses'][str(route.status)])}."


def _told(*texts: str) -> str:
    """Sentences."""
    return " ".join(f"{text[0].upper()}{text[1:].removesuffix('.')}." for text in texts if text)


def _models(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        if is_page(name):
            continue
        yield f"### {name}\n"
        text = paragraphs(schema.get("description"))
        if text:
            yield text + "\n"
        if "enum" in schema:
            yield "One of " + ", ".join(code(value) for value in schema["enum"]) + ".\n"
        elif schema.get("properties"):
            yield table(("field", "type", "default", "meaning"), _fields(schema)) + "\n"


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        told = _told(field.get("description", ""), bounds(field))
        yield code(name), type_of(field), default(field, name in required), told

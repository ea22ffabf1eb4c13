"""How one call is made: bounded retries, one idempotency key, errors of one tree.

Everything here is a generator over `_steps`; no I/O, no clock of its own.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ValidationError

from . import errors, limits
from ._steps import Call, Emit, Flow, Pause, Reply
from .models import ErrorAnswer, Page

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

#: Answers that say "not now": the call had no effect, or has the same one when repeated.
_AGAIN = frozenset({429, 502, 503, 504})
#: A repeated call whose first copy is still being worked on.
_IN_PROGRESS = "in_progress"
_MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
#: A service that asks for a longer wait than this is told to the caller instead.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a call is repeated. `attempts` counts the first one too."""

    attempts: int = 5
    first: float = 0.5
    longest: float = 8.0

    def pause(self, failures: int) -> float:
        """Seconds before the next try after `failures` in a row; spread, so that clients that were
        cut off together do not come back together."""
        base = min(self.longest, self.first * 2.0 ** min(30, max(0, failures - 1)))
        return base * random.uniform(0.75, 1.25)  # noqa: S311 - not a secret


RETRY = Retry()


def segment(value: str, what: str) -> str:
    """`value` as one path segment. One that a path would swallow is refused here."""
    try:
        quoted = quote(value, safe="")
    except UnicodeEncodeError:  # bytes from a command line that are no text
        quoted = ""
    if quoted in ("", ".", ".."):
        raise errors.refusal(404, "not_found", f"There is no such {what}.")
    return quoted


def params(**values: object) -> tuple[tuple[str, str], ...]:
    """Query parameters; None is left out, True is "true", a list or set is repeated."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if value is None or value is False:
            continue
        if isinstance(value, (list, tuple, set, frozenset)):
            pairs += [(key, str(item)) for item in sorted(value, key=str)]
        else:
            pairs.append((key, "true" if value is True else str(value)))
    return tuple(pairs)


def body(request: BaseModel) -> bytes:
    """A request model as JSON; what was not given is left out."""
    return request.model_dump_json(exclude_none=True).encode()


def exchange(
    call: Call, retry: Retry = RETRY, key: str | None = None, *, keyed: bool = True
) -> Flow[Reply]:
    """Make one call, repeated while it is safe and bounded; returns a 2xx reply or raises.

    Without a key (not `keyed`) goes what does the same a second time, for which the service then
    keeps no books.
    """
    headers = {"Accept": "application/json", **call.headers}
    if keyed and call.method in _MUTATING:
        headers["Idempotency-Key"] = key or uuid.uuid4().hex
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    call = Call(call.method, call.path, call.params, call.body, headers)
    failures = 0
    while True:
        try:
            reply: Reply = yield call
        except errors.Unreachable:
            failures += 1
            if failures >= retry.attempts:
                raise
            yield Pause(retry.pause(failures))
            continue
        if reply.status // 100 == 2:  # noqa: PLR2004
            return reply
        failures += 1
        wait = retry_after(reply)
        if not _may_repeat(reply) or failures >= retry.attempts or (wait or 0) > _PATIENCE:
            raise error_of(reply)
        yield Pause(wait if wait is not None else retry.pause(failures))


def fetch(
    call: Call,
    kind: type[M],
    *,
    retry: Retry = RETRY,
    key: str | None = None,
    keyed: bool = True,
) -> Flow[M]:
    """Make one call and read its answer as `kind`."""
    reply = yield from exchange(call, retry, key, keyed=keyed)
    return parse(kind, reply.body)


def page(call: Call, kind: type[Page[M]], limit: int | None, cursor: str | None) -> Flow[Page[M]]:
    """One page of a list."""
    more = params(limit=limit, cursor=cursor)
    return (yield from fetch(Call(call.method, call.path, call.params + more), kind))


def items(call: Call, kind: type[Page[M]], page_size: int = limits.PAGE_MAX) -> Flow[None]:
    """Emit every item of a list, page by page as they are asked for."""
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        found = yield from page(call, kind, page_size, cursor)
        for item in found.items:
            yield Emit(item)
        cursor = following(found.next_cursor, seen)
        if cursor is None:
            return


def following(cursor: str | None, seen: set[str]) -> str | None:
    """The cursor itself, which is then among those that were `seen`.

    Raises:
        ServerFault: it was before: the list would have no end.
    """
    if cursor in seen:
        raise errors.ServerFault("The service gave the same page of a list twice.")
    if cursor is not None:
        seen.add(cursor)
    return cursor


def collect(flow: Flow[None], keep: Callable[[Any], bool] = lambda _: True) -> Flow[list[Any]]:
    """Run an emitting flow inside another one and gather what it emits."""
    gathered: list[Any] = []
    answer: Any = None
    try:
        step = next(flow)
        while True:
            if isinstance(step, Emit):
                if keep(step.value):
                    gathered.append(step.value)
                step = flow.send(None)
                continue
            try:
                answer = yield step
            except errors.Unreachable as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration:
        return gathered


def parse(kind: type[M], text: bytes) -> M:
    """Read an answer; one that does not fit is a fault of the service (or of its version)."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise errors.ServerFault(
            f"The service's answer could not be understood as {_plain(kind)}. "
            "Client and service may be of different versions."
        ) from error


def retry_after(reply: Reply) -> float | None:
    """Seconds that the service asks to wait; None without a (sensible) number."""
    text = reply.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None  # noqa: PLR2004


def error_of(reply: Reply) -> errors.GpuDevError:
    """The error that an answer other than 2xx stands for."""
    told = _told(reply.body)
    if told is not None and reply.status < 500:  # noqa: PLR2004
        return errors.refusal(
            reply.status,
            told.error.code,
            told.error.message,
            told.error.field,
            told.error.accepted,
        )
    if reply.status in (502, 503, 504):
        return errors.Unreachable(
            told.error.message if told else "The service is not available at the moment."
        )
    if reply.status == 507 and told is not None:  # noqa: PLR2004 - a full disk is a refusal
        return errors.refusal(507, told.error.code, told.error.message)
    if reply.status in (301, 302, 303, 307, 308):
        return _redirected(reply)
    request_id = reply.headers.get("x-request-id")
    if told is not None:
        return errors.ServerFault(told.error.message, status=reply.status, request_id=request_id)
    return errors.ServerFault(
        f"There is no gpudev service at this address (HTTP {reply.status}).",
        status=reply.status,
        request_id=request_id,
    )


def invalid(error: ValidationError) -> errors.InvalidInput:
    """A request that does not even have the right shape, as the same refusal that the service
    would give."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    message = first["msg"].removeprefix("Value error, ")
    return errors.InvalidInput(
        "invalid_input", f"{field or 'input'}: {message}.", field=field, status=422
    )


def _may_repeat(reply: Reply) -> bool:
    if reply.status in _AGAIN:
        return True
    told = _told(reply.body) if reply.status == 409 else None  # noqa: PLR2004
    return told is not None and told.error.code == _IN_PROGRESS


def _told(text: bytes) -> ErrorAnswer | None:
    try:
        return ErrorAnswer.model_validate(json.loads(text))
    except (ValueError, RecursionError):  # not JSON, or not ours: a proxy's page, a cut answer
        return None


def _redirected(reply: Reply) -> errors.GpuDevError:
    # Not followed: the token would travel along. The address alone is told, not its query.
    target = urlsplit(reply.headers.get("location", ""))
    where = f" to {target.scheme}://{target.netloc}" if target.netloc else ""
    return errors.ServerFault(
        f"The address redirects{where}; set the service's own address instead.",
        status=reply.status,
    )


def _plain(kind: type[BaseModel]) -> str:
    return kind.__name__.split("[", maxsplit=1)[0].lower()


def joined(values: Iterable[object]) -> str:
    """Values as a list for a person: "1, 2, 4"."""
    return ", ".join(str(value) for value in values)

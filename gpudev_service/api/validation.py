"""From bytes to validated models, and from what is wrong to one sentence for a person.

Nothing is guessed: text that is not UTF-8, JSON that is broken, too deep, or names a field twice,
and unknown fields are refused, each with the place and what would be accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gpudev_client import limits
from gpudev_service.errors import Refusal

ModelT = TypeVar("ModelT", bound=BaseModel)

#: Deeper than any request of ours; far from what would exhaust the stack.
DEPTH_MAX = 20

#: What a pattern of `gpudev_client.limits` means, in words.
_PATTERNS: Mapping[str, str] = {
    rf"^{limits.DISK_NAME}$": (
        "may have letters, digits, dots, underscores and hyphens, begins with a letter or digit, "
        "and has 63 characters at most"
    ),
    rf"^{limits.TYPE_NAME}$": "has lower-case letters, digits, dots and hyphens, 63 at most",
}


def read_body(raw: bytes, model: type[ModelT]) -> ModelT:
    """The request's body. An empty one counts as `{}`.

    Raises:
        Refusal: `bad_request` for what is not JSON, `invalid_input` for what does not fit.
    """
    text = _text(raw)
    try:
        value = json.loads(
            text or "{}", object_pairs_hook=_no_duplicates, parse_constant=_no_constants
        )
    except json.JSONDecodeError as error:
        raise Refusal(
            "bad_request",
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise Refusal("bad_request", "The body must be a JSON object, like {}.")
    if _depth(value) > DEPTH_MAX:
        raise _too_deep()
    try:
        return model.model_validate_json(text or "{}", strict=True)
    except ValidationError as error:
        raise explain(error, model) from None


def read_query(arguments: Mapping[str, Sequence[bytes]], model: type[ModelT]) -> ModelT:
    """The query's parameters; one that is given twice must be a list in `model`."""
    values: dict[str, Any] = {}
    for name, given in arguments.items():
        try:
            texts = [item.decode() for item in given]
        except UnicodeDecodeError:
            raise Refusal("bad_request", "The query is not UTF-8.", field=_short(name)) from None
        if _is_list(model, name):
            values[name] = texts
        elif len(texts) > 1:
            raise Refusal("invalid_input", f"{_short(name)} stands twice.", field=_short(name))
        else:
            values[name] = texts[0]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model) from None


def explain(error: ValidationError, model: type[BaseModel]) -> Refusal:
    """The first thing that is wrong, said in one sentence that names the field."""
    found = error.errors(include_url=False, include_input=False)
    # A misspelt field comes before the one that is missing because of it.
    details = next((d for d in found if d["type"] == "extra_forbidden"), found[0])
    # A place in a list says nothing to whoever filled in the field.
    named = [part for part in details["loc"] if isinstance(part, str)]
    place = ".".join(_short(part) for part in named) or None
    if details["type"] == "extra_forbidden":
        names = list(model.model_fields)
        known = f"Known here: {', '.join(names)}." if names else "None is known here."
        return Refusal(
            "invalid_input", f"There is no field {place}. {known}", field=place, accepted=names
        )
    sentence, accepted = _words(details)
    return Refusal(
        "invalid_input",
        f"{place} {sentence}." if place else f"The request {sentence}.",
        field=place,
        accepted=accepted,
    )


def _words(details: ErrorDetails) -> tuple[str, Any]:
    """What is wrong with a field, and what would be accepted."""
    kind, context = details["type"], details.get("ctx", {})
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple, None
    bound = _BOUNDS.get(kind)
    if bound is not None:
        words, key, side = bound
        limit = context[key]
        return words.format(limit), {side: limit}
    if kind in {"literal_error", "enum"}:
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"must be one of: {expected}", expected.split(", ")
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], "has a form that is not accepted"), None
    if kind == "value_error":
        return f"is not accepted: {context['error']}", None
    return f"is not accepted: {details['msg'].lower()}", None


_SIMPLE: Mapping[str, str] = {
    "missing": "is needed",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be an object",
    "timezone_aware": "needs its time zone, like 2030-01-31T12:00:00Z",
    "datetime_type": "must be a time, like 2030-01-31T12:00:00Z",
    "datetime_parsing": "must be a time, like 2030-01-31T12:00:00Z",
    "datetime_from_date_parsing": "must be a time, like 2030-01-31T12:00:00Z",
}

_BOUNDS: Mapping[str, tuple[str, str, str]] = {
    "greater_than": ("must be more than {}", "gt", "more_than"),
    "greater_than_equal": ("must be at least {}", "ge", "min"),
    "less_than": ("must be less than {}", "lt", "less_than"),
    "less_than_equal": ("must be at most {}", "le", "max"),
    "string_too_long": ("may have {} characters at most", "max_length", "max_length"),
    "too_long": ("may have {} entries at most", "max_length", "max_length"),
    "string_too_short": ("must have {} characters at least", "min_length", "min_length"),
}


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Refusal(
            "bad_request", f"The body is not UTF-8 text; see byte {error.start}."
        ) from None
    return text if text.strip() else ""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Refusal(
                "bad_request", f"The body names {_short(name)} twice.", field=_short(name)
            )
        found[name] = value
    return found


def _no_constants(name: str) -> Any:
    raise Refusal("bad_request", f"The body has {name}, which is not JSON.")


def _depth(value: Any) -> int:
    """How many objects and lists are inside one another; stops just above the limit."""
    level, depth = [value], 0
    while level and depth <= DEPTH_MAX:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def _too_deep() -> Refusal:
    return Refusal("bad_request", f"The body is nested deeper than {DEPTH_MAX} levels.")


def _is_list(model: type[BaseModel], name: str) -> bool:
    info = model.model_fields.get(name)
    if info is None:
        return False
    kinds = [info.annotation, *get_args(info.annotation)]
    return any(get_origin(kind) in {list, tuple, set, frozenset} for kind in kinds)


def _short(text: str) -> str:
    """A caller's own word, fit to be shown back."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:60])
    return shown + "..." if len(text) > 60 else shown  # noqa: PLR2004 - as above


def idempotency_key(text: str) -> str:
    """A client's key, when it has the form of one."""
    if re.fullmatch(limits.IDEMPOTENCY_KEY, text) is None:
        raise Refusal(
            "invalid_input",
            "An Idempotency-Key has 8 to 128 visible ASCII characters.",
            field="Idempotency-Key",
        )
    return text

"""JSON schemas of the API's models, in words."""

from __future__ import annotations

from typing import Any

from .markdown import anchor, code

Schema = dict[str, Any]

_PAGE = "Page_"
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "maxProperties": "at most {} entries",
    "pattern": "shape `{}`",
}


def type_of(schema: Schema) -> str:
    """What a value may be, with a link to the model where it is one."""
    match schema:
        case {"$ref": str(place)}:
            return linked(place.rsplit("/", 1)[-1])
        case {"anyOf": list(options)}:
            return " or ".join(dict.fromkeys(map(type_of, options)))
        case {"enum": list(values)}:
            return ", ".join(code(str(value)) for value in values)
        case {"const": value}:
            return code(str(value))
    return _plain(schema)


def _plain(schema: Schema) -> str:
    match schema:
        case {"type": "array"}:
            return f"list of {type_of(schema.get('items', {}))}"
        case {"format": "date-time"}:
            return "time"
    return str(schema.get("type", "any"))


def linked(name: str) -> str:
    """A model by its name; a page by what is on it."""
    if name.startswith(_PAGE):
        return f"page of {linked(name.removeprefix(_PAGE).rstrip('_'))}"
    return f"[{name}](#{anchor(name)})"


def is_page(name: str) -> bool:
    return name.startswith(_PAGE)


def bounds(schema: Schema) -> str:
    """The limits of a value in words; nothing where there are none."""
    found = [words.format(_number(schema[key])) for key, words in _LIMITS.items() if key in schema]
    inner = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    found += [text for text in map(bounds, inner) if text]
    return ", ".join(dict.fromkeys(found))


def default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if value in (None, "", [], {}):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else str(value))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

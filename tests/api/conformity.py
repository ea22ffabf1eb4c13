"""Whether answers are what the OpenAPI document says."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from openapi_schema_validator import OAS31Validator

from gpudev_service.api.openapi import document
from gpudev_service.api.routes import ROUTES

SPEC = document(ROUTES, "/services/gpudev/api/v1")
_BY_NAME = {
    operation["operationId"]: operation
    for path in SPEC["paths"].values()
    for operation in path.values()
}


def complaints(route: str, status: int, body: bytes) -> list[str]:
    """What is wrong with an answer of the route of that name; empty for event streams."""
    response = _BY_NAME[route]["responses"].get(str(status))
    if response is None:
        return [f"{route}: {status} is not described"]
    media = response.get("content", {})
    if "text/event-stream" in media or not media:
        return []
    found = _against(media["application/json"]["schema"], body)
    return [f"{route}: {status}: {one}" for one in found]


def complaints_of_error(body: bytes) -> list[str]:
    """What is wrong with a refusal that belongs to no route."""
    return [f"refusal: {one}" for one in _against(_reference("ErrorAnswer"), body)]


def complaints_of_stream(text: str) -> list[str]:
    """What is wrong with the messages of an event stream."""
    found = []
    for block in text.split("\n\n"):
        if not block or block.startswith(":"):
            continue
        at, _, data = block.partition("\n")
        number, told = at.removeprefix("id: "), data.removeprefix("data: ")
        if at != f"id: {number}" or not number.isdigit() or data != f"data: {told}":
            found.append(f"no message: {block[:200]!r}")
            continue
        wrong = _against(_reference("Event"), told.encode())
        found += [f"event {number}: {one}" for one in wrong]
        if not wrong and json.loads(told)["id"] != int(number):
            found.append(f"event {number} has another id inside")
    return found


def _reference(model: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model}"}


def _against(described: dict[str, Any], body: bytes) -> list[str]:
    try:
        value = json.loads(body)
    except ValueError:
        return [f"no JSON: {body[:200]!r}"]
    errors = _validator(json.dumps(described)).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in errors]


@cache
def _validator(described: str) -> OAS31Validator:
    return OAS31Validator({**json.loads(described), "components": SPEC["components"]})

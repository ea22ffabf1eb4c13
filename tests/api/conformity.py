"""Whether answers are what the OpenAPI document says."""

from __future__ import annotations

import json
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
    schema: dict[str, Any] = {**media["application/json"]["schema"]}
    schema["components"] = SPEC["components"]
    errors = OAS31Validator(schema).iter_errors(json.loads(body))
    return [f"{route}: {status}: {error.json_path}: {error.message}" for error in errors]

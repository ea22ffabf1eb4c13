"""The OpenAPI 3.1 document, made from the route table and the models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gpudev_client import limits
from gpudev_client.models import ErrorAnswer
from gpudev_service.errors import CODES

from .permissions import PREFIX, SCOPES
from .route import PARAMETERS, Access, Route

_REF = "#/components/schemas/{model}"

#: In words, who may call.
_WHO = {
    Access.PUBLIC: "Anybody, without a token.",
    Access.READ: "Whoever holds any scope of gpudev.",
    Access.RESERVATION_READ: "Whoever may see the reservation: `custom:gpudev:read`.",
    Access.RESERVATION_WRITE: "Whoever may change the reservation: `custom:gpudev:reserve`.",
    Access.LEAVE: "Whoever may change the reservation, and the collaborator for themself: "
    "`custom:gpudev:reserve`.",
    Access.CONNECT: "The owner and collaborators who use the server: `custom:gpudev:reserve` for "
    "the caller.",
    Access.LAB: "The reservation's own server: `custom:gpudev:lab`.",
    Access.PERSON_READ: "That person, with `custom:gpudev:read`, and admins.",
    Access.PERSON_WRITE: "That person, with `custom:gpudev:reserve`, and admins.",
    Access.DISK_READ: "Whoever may see the user's disks: `custom:gpudev:read`.",
    Access.DISK_WRITE: "Whoever may change the user's disks: `custom:gpudev:reserve`.",
    Access.CREATE: "Whoever may reserve for the user: `custom:gpudev:reserve`.",
    Access.ADMIN: "Admins: `custom:gpudev:admin`.",
    Access.SPAWNER: "The Hub's spawner: `custom:gpudev:spawner`.",
    Access.METRICS: "Admins, and tokens with `read:metrics`.",
}


def document(routes: Sequence[Route], server: str) -> dict[str, Any]:
    """The document for a service whose API begins at `server`, a path or an address."""
    names, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names)
    scopes = {f"{PREFIX}{name}": ", ".join(sorted(rights)) for name, rights in SCOPES.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpudev",
            "version": version("gpudev"),
            "summary": "GPU reservations for JupyterHub.",
            "description": "Times are UTC, ISO 8601. Every refusal has the form of `ErrorAnswer`; "
            "its codes are stable. Scopes may be filtered with !user=, !group= and !server=: "
            + "; ".join(f"`{scope}` ({rights})" for scope, rights in scopes.items())
            + ".",
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "hubToken": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token ...` or `Bearer ...` with a token of the Hub.",
                }
            },
        },
    }


def render(routes: Sequence[Route], server: str) -> bytes:
    return json.dumps(document(routes, server)).encode()


def _schemas(routes: Sequence[Route]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """Where each model stands in the document, and all that stand there."""
    wanted: list[tuple[type[BaseModel], Any]] = [(ErrorAnswer, "serialization")]
    for route in routes:
        if route.body is not None:
            wanted.append((route.body, "validation"))
        if route.answer is not None:
            wanted.append((route.answer, "serialization"))
    unique = list(dict.fromkeys(wanted))
    names, definitions = models_json_schema(unique, ref_template=_REF)
    return dict(names), definitions["$defs"]


def _operation(route: Route, names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _WHO[route.access],
        "tags": [route.path.split("/")[1]],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, names),
        "security": [] if route.access is Access.PUBLIC else [{"hubToken": []}],
    }
    if route.mutating and not route.secret:
        operation["parameters"].append(_idempotency_key())
    if route.stream:
        operation["parameters"].append(_last_event_id())
    if route.body is not None:
        operation["requestBody"] = {
            "required": any(f.is_required() for f in route.body.model_fields.values()),
            "content": {"application/json": {"schema": names[(route.body, "validation")]}},
        }
    return operation


def _responses(route: Route, names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    schema = names[(route.answer, "serialization")] if route.answer is not None else {}
    responses: dict[str, Any] = {
        str(route.status): {
            "description": "The answer.",
            "content": {route.media: {"schema": {} if route.stream else schema}},
        }
    }
    if route.stream:
        responses["200"]["description"] = (
            "Server-sent events; the data of each message is an `Event`."
        )
        responses["204"] = {"description": "All has been seen and nothing more will come."}
    error = names[(ErrorAnswer, "serialization")]
    by_status: dict[int, list[str]] = {}
    for code in route.codes:
        by_status.setdefault(CODES[code], []).append(code)
    for status, codes in sorted(by_status.items()):
        content = {"application/json": {"schema": error}}
        if route.name == "health":
            # Readiness says what is the matter in its own form.
            own = names[(route.answer, "serialization")]
            content = {"application/json": {"schema": {"anyOf": [own, error]}}}
        responses[str(status)] = {
            "description": "Refused: " + ", ".join(codes) + ".",
            "content": content,
        }
    return responses


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^({PARAMETERS[name]})$"},
        }
        for name in route.parameters
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    schema = route.query.model_json_schema(ref_template=_REF)
    parameters = []
    for name, described in schema.get("properties", {}).items():
        described.pop("title", None)
        text = described.pop("description", "")
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", []),
                "description": text,
                "schema": described,
            }
        )
    return parameters


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A new key for each request; a repeated one is answered as the first was.",
        "schema": {"type": "string", "pattern": f"^{limits.IDEMPOTENCY_KEY}$"},
    }


def _last_event_id() -> dict[str, Any]:
    return {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "The id of the last message that was seen: what was missed comes first.",
        "schema": {"type": "string"},
    }

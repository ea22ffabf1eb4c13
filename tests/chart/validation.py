"""Manifests against the schemas of the Kubernetes that the cluster's tests run.

The schemas are made from the OpenAPI document in Kubernetes' own Go module, so that they are those
of exactly that version. What belongs to Prometheus' operator has no schema here and is left out by
name.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chart import programs

#: Made by operators, not by Kubernetes.
_WITHOUT_SCHEMA = ("PodMonitor", "ServiceMonitor", "PrometheusRule")
_PREFIX = "#/definitions/"


def conforms(text: str) -> list[str]:
    """What kubeconform finds wrong with the manifests; nothing where all is well."""
    program = programs.kubeconform()
    assert program is not None
    done = subprocess.run(
        [
            program,
            "-strict",
            f"-schema-location={_schemas()}/{{{{.ResourceKind}}}}-{{{{.KindSuffix}}}}.json",
            f"-skip={','.join(_WITHOUT_SCHEMA)}",
            "-output=json",
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout).get("resources") or []
    return [f"{each['kind']} {each['name']}: {each['msg']}" for each in found]


@functools.cache
def _schemas() -> Path:
    """A folder with one schema per kind, made anew for each run of the tests."""
    document = programs.openapi()
    assert document is not None
    folder = Path(tempfile.mkdtemp(prefix="gpudev-schemas-"))
    for name, schema in schemas(json.loads(document.read_text())["definitions"]).items():
        (folder / f"{name}.json").write_text(json.dumps(schema))
    return folder


def schemas(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """By kind and version, as kubeconform asks for it: each with all that it refers to."""
    strict = {name: _strict(definition) for name, definition in definitions.items()}
    found = {}
    for name, definition in strict.items():
        for kind in definitions[name].get("x-kubernetes-group-version-kind", ()):
            group = kind["group"].partition(".")[0]
            suffix = f"-{group}-{kind['version']}" if group else f"-{kind['version']}"
            found[f"{kind['kind'].lower()}-{suffix}"] = {
                **definition,
                "definitions": _used(name, strict),
            }
    return found


def _used(name: str, definitions: Mapping[str, Any]) -> dict[str, Any]:
    used: dict[str, Any] = {}
    open_ = [name]
    while open_:
        current = open_.pop()
        for other in re.findall(rf'"{_PREFIX}([^"]+)"', json.dumps(definitions[current])):
            if other not in used:
                used[other] = definitions[other]
                open_.append(other)
    return used


def _strict(schema: Any) -> Any:
    """Unknown fields are mistakes; a number or text where Kubernetes takes both."""
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if not key.startswith(("x-", "format"))}
    for key in ("items", "additionalProperties"):
        if key in made:
            made[key] = _strict(made[key])
    if "properties" in made:
        required = made.get("required", ())
        made["properties"] = {
            name: _strict(each) if name in required else _or_null(_strict(each))
            for name, each in made["properties"].items()
        }
        made.setdefault("additionalProperties", False)
    if schema.get("format") == "int-or-string":
        made["type"] = ["string", "integer"]
    if str(schema.get("description", "")).startswith("Quantity is a fixed-point"):
        made["type"] = ["string", "number"]
    return made


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Null is as good as not being there."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = schema.get("type")
    return {**schema, "type": [*([kinds] if isinstance(kinds, str) else kinds or ()), "null"]}

"""Every value is described, has a type, and is used; every default is what the schema accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.rendering import CHART, EVERYTHING, EXAMPLES, LEAST, example, render

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def described(
    schema: dict[str, Any], default: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], Any]]:
    """Every value that the defaults have, with what the schema says of it."""
    for name, value in default.items():
        inner = schema.get("properties", {}).get(name)
        here = (*path, name)
        assert inner is not None, f"{'.'.join(here)} is not in the schema"
        yield here, inner, value
        if isinstance(value, dict) and "properties" in inner:
            yield from described(inner, value, here)


ALL = list(described(SCHEMA, DEFAULTS))
OWN = [(path, schema) for path, schema, _ in ALL if path[0] != "jupyterhub"]


def test_the_defaults_and_examples_are_what_the_schema_accepts() -> None:
    check = jsonschema.Draft7Validator(SCHEMA)
    check.check_schema(SCHEMA)
    check.validate(DEFAULTS)
    for name in EXAMPLES:
        partial = {**SCHEMA, "required": []}
        jsonschema.Draft7Validator(partial).validate(example(name))


@pytest.mark.parametrize(("path", "schema"), OWN, ids=[".".join(path) for path, _ in OWN])
def test_a_value_says_what_it_is_and_takes_nothing_unknown(
    path: tuple[str, ...], schema: dict[str, Any]
) -> None:
    assert schema["description"].endswith((".", "`.", ")."))
    assert "type" in schema or "enum" in schema
    if schema.get("type") == "object":
        assert schema.get("additionalProperties", True) is not True or "properties" not in schema


def test_the_schema_describes_nothing_that_has_no_default() -> None:
    def names(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, inner in schema.get("properties", {}).items():
            yield (*path, name)
            yield from names(inner, (*path, name))

    with_default = {path for path, _, _ in ALL}
    free: set[tuple[str, ...]] = {("global",)}  # Helm's own
    free |= {path for path in names(SCHEMA) if path[0] in {"config", "policy"} and len(path) > 1}
    free |= {path for path in names(SCHEMA) if path[-1] in {"limits", "requests"}}
    assert set(names(SCHEMA)) - with_default - free == set()


#: Where another value of the same kind is not simply made.
OTHERS: dict[str, Any] = {
    "gpuTypes": {"other": {"gpus_per_node": 0, "cpus": 1, "memory_gb": 1}},
    "policy": {"default_hours": 3},
    "times": {"sweep": 9},
    "config": {"GpuDev": {"history_days": 9}},
    "extraConfig": {"other": "pass"},
    "publicUrl": "https://other.example.org",
    "database.trial.storage.size": "9Gi",
    "monitoring.interval": "9s",
    "service.extraEnv": [{"name": "OTHER", "value": "1"}],
    "service.tolerations": [{"key": "other"}],
    "service.affinity": {"podAffinity": {}},
    "service.resources.requests": {"cpu": "9"},
    "service.resources.limits": {"memory": "9Gi"},
    "database.trial.resources.requests": {"cpu": "9"},
    "database.trial.resources.limits": {"memory": "9Gi"},
}
#: Which database there is, is one choice; that each works has a test of its own.
CHOICES = {
    "database.url",
    "database.existingSecret.name",
    "database.existingSecret.key",
    "database.trial.enabled",
}
#: These say something about a database that is not the trial one.
OUTSIDE = {"networkPolicy.database.cidrs", "networkPolicy.database.port"}


def other(name: str, schema: dict[str, Any], now: Any) -> Any:
    """A value that is not the present one."""
    if name in OTHERS:
        return OTHERS[name]
    if "enum" in schema:
        return next(each for each in schema["enum"] if each != now)
    if schema["type"] == "array":
        items = schema["items"]
        if "pattern" in items:
            return ["203.0.113.99/32"]
        of_kind: dict[str, Any] = {
            "integer": 99,
            "string": "other",
            "object": {"ports": [{"port": 9}]},
        }
        return [of_kind[items["type"]]]
    if schema["type"] in {"boolean", "integer"}:
        return not now if isinstance(now, bool) else now + 1
    return "other" if schema["type"] == "string" else {"other": "other"}


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def shown(*values: dict[str, Any]) -> list[Any]:
    """What this chart makes, without what is made at random each time."""
    return [
        {key: value for key, value in each.items() if key != "data"}
        for each in render(*values, upgrade=True).manifests
        if each["metadata"]["labels"].get("app.kubernetes.io/name") == "gpudev"
    ]


LEAVES = [
    (path, schema)
    for path, schema in OWN
    if "properties" not in schema or path == ("config",)
    if ".".join(path) not in CHOICES
]


@pytest.mark.chart
@pytest.mark.slow
@pytest.mark.parametrize(("path", "schema"), LEAVES, ids=[".".join(path) for path, _ in LEAVES])
def test_a_value_changes_what_is_made(path: tuple[str, ...], schema: dict[str, Any]) -> None:
    name = ".".join(path)
    base = LEAST if name in OUTSIDE else EVERYTHING
    now: Any = {**DEFAULTS}
    for part in path:
        now = now[part]
    set_now: Any = base
    for part in path:
        set_now = set_now.get(part) if isinstance(set_now, dict) else None
    now = now if set_now is None else set_now
    assert shown(base, nested(path, other(name, schema, now))) != shown(base)


def test_what_differs_from_the_jupyterhub_chart_says_why() -> None:
    for path, schema, value in ALL:
        if path[0] == "jupyterhub" and "properties" not in schema:
            assert schema["description"], path
            del value

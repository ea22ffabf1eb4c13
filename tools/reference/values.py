"""`docs/operators/helm-values.md`, from the chart's schema and its defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .markdown import NOTICE, code, table

CHART = Path(__file__).resolve().parents[2] / "helm" / "gpudev"

_INTRODUCTION = """\
# Values of the chart

What `helm install helm/gpudev --values FILE` accepts. Names, types and what is refused stand in
`helm/gpudev/values.schema.json`, defaults in `helm/gpudev/values.yaml`, whole files for three kinds
of installation in `helm/gpudev/examples`; how one is made is in [the guide](kubernetes.md).
"""
_UPSTREAM = """\
## jupyterhub

{description}

These differ from its defaults:
"""
#: Longer defaults are looked up in values.yaml.
_LONGEST = 60


def page() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    parts = [NOTICE, _INTRODUCTION]
    rows = []
    for name, described in schema["properties"].items():
        if name in {"global", "jupyterhub"}:
            continue
        rows += list(_leaves(name, described, defaults[name]))
    parts.append(table(("value", "type", "default", "meaning"), rows) + "\n")
    upstream = schema["properties"]["jupyterhub"]
    parts.append(_UPSTREAM.format(description=upstream["description"]).rstrip() + "\n")
    different = _upstream("jupyterhub", upstream, defaults["jupyterhub"])
    parts.append(table(("value", "here", "why"), different))
    return "\n".join(parts).rstrip() + "\n"


def _leaves(
    path: str, schema: Mapping[str, Any], default: Any
) -> Iterator[tuple[str, str, str, str]]:
    """A row for each value, groups included: what a group is stands at its head."""
    inner = schema.get("properties")
    if inner and isinstance(default, dict) and default:
        yield code(path), "", "", schema["description"]
        for name, each in inner.items():
            yield from _leaves(f"{path}.{name}", each, default.get(name))
        return
    yield code(path), _type(schema), _shown(default), schema["description"]


def _upstream(path: str, schema: Mapping[str, Any], default: Any) -> Iterator[tuple[str, str, str]]:
    for name, each in schema["properties"].items():
        here = f"{path}.{name}"
        if "properties" in each:
            yield from _upstream(here, each, default[name])
        else:
            yield code(here), _shown(default[name]), each["description"]


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(code(str(each)) for each in schema["enum"])
    kind = str(schema["type"])
    if kind == "array":
        return f"list of {schema['items'].get('type', 'values')}s"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"))
        if key in schema
    ]
    return ", ".join([kind, *bounds])


def _shown(default: Any) -> str:
    text = json.dumps(default)
    return code(text) if len(text) <= _LONGEST else "see values.yaml"

"""Sections of pages that otherwise are written by hand."""

from __future__ import annotations

import configparser
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gpudev_client.states import FINAL, LEASED, State
from gpudev_hub_config import local, roles
from gpudev_service.api.metrics import Metrics
from gpudev_service.operations.transitions import ALLOWED
from gpudev_service.simulate.options import ALIASES, FLAGS, Simulate

from .markdown import code, fenced, table

_IMPORTS = Path(__file__).resolve().parents[2] / ".importlinter"


def scopes() -> str:
    """gpudev's own scopes."""
    rows = [
        (code(name), str(scope["description"]), ", ".join(map(code, scope.get("subscopes", []))))
        for name, scope in roles.SCOPES.items()
    ]
    return table(("scope", "what people read when they confirm a token", "contains"), rows)


def role_table() -> str:
    """Every scope of every role, with its reason."""
    groups: Mapping[str, Iterable[tuple[str, str]]] = {
        "role `user`: everybody, in place of the Hub's own role": roles.USER,
        "role `gpudev-admin`: `admins` of `configure`": roles.ADMIN,
        "role `gpudev-service`: the service, at the Hub's API": roles.SERVICE_SCOPES,
        "role `gpudev-spawner`: the spawner, at the service": roles.SPAWNER_SCOPES,
        "the token in each server's environment": roles.SERVER_TOKEN,
        "the login of whoever opens a server, as far as they hold it": roles.VISITOR,
    }
    rows = [
        (holder if not index else "", code(scope), reason)
        for holder, held in groups.items()
        for index, (scope, reason) in enumerate(held)
    ]
    return table(("who", "scope", "why"), rows)


def configure() -> str:
    """The arguments of `local.configure`."""
    text = inspect.getdoc(local.configure) or ""
    described = dict(
        re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    rows = [
        (
            code(name),
            "required" if argument.default is argument.empty else code(repr(argument.default)),
            described[name],
        )
        for name, argument in inspect.signature(local.configure).parameters.items()
    ]
    return table(("argument", "default", "meaning"), rows)


def ports() -> str:
    """The ports of `local.Ports`."""
    kind = local.Ports
    rows = [
        (code(name), code(repr(argument.default)))
        for name, argument in inspect.signature(kind).parameters.items()
    ]
    return table(("`Ports`", "default"), rows)


def metrics() -> str:
    """What `/metrics` has."""
    rows = [
        (code(_name(metric.name, metric.type)), metric.type, metric.documentation)
        for metric in Metrics().registry.collect()
    ]
    return table(("metric", "type", "meaning"), rows)


def _name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def states() -> str:
    """The life of a reservation, from the table of moves that are allowed."""
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {state}" for state in (State.SCHEDULED, State.QUEUED)]
    for state in State:
        lines += [f"    {state} --> {to}" for to in State if to in ALLOWED[state]]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    lines += ["    classDef lease fill:#d6e9ff,stroke:#2b6cb0,color:#000"]
    lines += [f"    class {','.join(state for state in State if state in LEASED)} lease"]
    return fenced("\n".join(lines), "mermaid")


def layers() -> str:
    """Who may import whom inside the service, as the import contract has it."""
    contract = configparser.ConfigParser()
    contract.read(_IMPORTS)
    lines = contract["importlinter:contract:service"]["layers"].strip().splitlines()
    rows = [" | ".join(re.sub(r"[()]", "", name) for name in line.split(" | ")) for line in lines]
    return fenced("\n".join(rows), "text")


def simulate() -> str:
    """The options of `gpudev simulate`."""
    traits = Simulate.class_own_traits(config=True)
    flags = {name: f"`--{name}`" for name, (value, _) in FLAGS.items() if value}
    shown = {trait.partition(".")[2]: f"`--{name}=`" for name, trait in ALIASES.items()} | flags
    rows = [(shown[name], " ".join(traits[name].help.split())) for name in traits]
    return table(("option", "meaning"), rows)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "scopes": scopes,
    "roles": role_table,
    "configure": configure,
    "ports": ports,
    "metrics": metrics,
    "states": states,
    "layers": layers,
    "simulate": simulate,
}

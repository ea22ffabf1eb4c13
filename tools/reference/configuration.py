"""`docs/operators/configuration.md`, from the traits and from the settings inside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from traitlets import HasTraits, TraitType
from traitlets.traitlets import DefaultHandler

from gpudev_service.config import GpuDev, GpuDevWeb
from gpudev_service.settings import (
    GpuTypeSpec,
    KubernetesType,
    NodeSpec,
    Policy,
    PolicyRule,
    ScaleUp,
    Times,
)
from gpudev_spawner.kube import GpuDevKubeSpawner
from gpudev_spawner.local import GpuDevLocalSpawner
from gpudev_spawner.mixin import GpuDevMixin

from .markdown import NOTICE, anchor, code, paragraphs, table
from .schemas import bounds

_INTRODUCTION = """\
# Configuration

Two files: the service's `gpudev_config.py`, and the Hub's `jupyterhub_config.py`. Both are
Python, and in both `c` is the configuration object. `gpudev --generate-config` writes the first
one with every trait and its help; how they come together is in [the guide](guide.md#set-up).

The service's traits can be given on its command line as well (`--GpuDevWeb.log_level=DEBUG`);
what stands there goes before the file. An unknown name and a value that cannot work end the start
with exit code 2 and a sentence that names the trait.
"""

#: In this order, with the file in which each is set.
SERVICE: tuple[type[HasTraits], ...] = (GpuDev, GpuDevWeb)
HUB: tuple[type[HasTraits], ...] = (
    GpuDevMixin,
    GpuDevLocalSpawner,
    GpuDevKubeSpawner,
)
#: What stands inside the traits, and in which.
NESTED: tuple[tuple[type[BaseModel], str], ...] = (
    (GpuTypeSpec, "`GpuDev.gpu_types`, each value"),
    (KubernetesType, "`kubernetes` in `GpuDev.gpu_types`, each value"),
    (ScaleUp, "`scale_up` in `kubernetes`"),
    (NodeSpec, "`GpuDev.nodes`, each item"),
    (Policy, "`GpuDev.policy`"),
    (PolicyRule, "`default` and each value of `groups` in `GpuDev.policy`"),
    (Times, "`GpuDev.times`"),
)
#: The default rule is given whole; a rule of a group says only what differs.
_DEFAULT_RULE = Policy().default


def page() -> str:
    parts = [NOTICE, _INTRODUCTION, "## Traits\n", table(("trait", "default"), _index()) + "\n"]
    parts.append("## The service: `gpudev_config.py`\n")
    parts += [_trait(kind, name) for kind in SERVICE for name in own_traits(kind)]
    parts.append("## Inside the traits\n")
    parts += [_nested(model, where) for model, where in NESTED]
    parts.append("## The Hub: `jupyterhub_config.py`\n")
    parts.append(
        "`gpudev_hub_config.local.configure` sets these; they are here for whoever does without "
        "it. The traits of JupyterHub's own spawners hold beside them.\n"
    )
    parts += [_trait(kind, name) for kind in HUB for name in own_traits(kind)]
    return "\n".join(parts).rstrip() + "\n"


def own_traits(kind: type[HasTraits]) -> Iterable[str]:
    """Names of the traits that the class itself adds, in the order of the code; what it only sets
    anew (the Hub's `options_form`) is no setting of ours."""
    found = kind.class_own_traits(config=True)
    inherited = {name for base in kind.__mro__[1:] for name in vars(base)}
    return [name for name in vars(kind) if name in found and name not in inherited]


def _index() -> Iterator[tuple[str, str]]:
    for kind in (*SERVICE, *HUB):
        for name in own_traits(kind):
            heading = f"{kind.__name__}.{name}"
            yield f"[`{heading}`](#{anchor(heading)})", _default(kind, name)


def _trait(kind: type[HasTraits], name: str) -> str:
    trait = kind.class_own_traits(config=True)[name]
    facts = [f"Type: {_type(trait)}."]
    facts.append(f"Default: {_default(kind, name)}.")
    limits = [
        f"{word} {value:g}"
        for word, value in (
            ("at least", getattr(trait, "min", None)),
            ("at most", getattr(trait, "max", None)),
        )
        if value not in (None, float("inf"), float("-inf"))
    ]
    if limits:
        facts.append(f"Accepted: {' and '.join(limits)}.")
    return f"### {kind.__name__}.{name}\n\n{' '.join(facts)}\n\n{paragraphs(trait.help)}\n"


def _type(trait: TraitType[Any, Any]) -> str:
    values = getattr(trait, "values", None)
    if values:
        return "one of " + ", ".join(code(str(value)) for value in values)
    none = " or None" if trait.allow_none else ""
    return code(type(trait).__name__) + none


def _default(kind: type[HasTraits], name: str) -> str:
    """The default as it would be written; in words where it is found out at start-up."""
    if any(isinstance(v, DefaultHandler) and v.trait_name == name for v in vars(kind).values()):
        return "found at start-up, see below"
    return code(kind.class_own_traits(config=True)[name].default_value_repr())


def _nested(model: type[BaseModel], where: str) -> str:
    schema = model.model_json_schema()["properties"]
    rows = [
        (code(name), _kind(field.annotation), _field_default(model, name), bounds(schema[name]))
        for name, field in model.model_fields.items()
        if not (model is GpuTypeSpec and name == "name")  # the key of the dict
    ]
    text = paragraphs(model.__doc__)
    return (
        f"### {model.__name__}\n\nIn {where}.\n\n{text}\n\n"
        + table(("key", "type", "default", "accepted"), rows)
        + "\n"
    )


def _kind(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    for long, short in (
        ("gpudev_service.settings.", ""),
        ("collections.abc.", ""),
        ("typing.", ""),
        (", ...", ""),
        (" | None", " or None"),
    ):
        text = text.replace(long, short)
    if text.startswith("Annotated["):
        text = "str"
    return code(text)


def _field_default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    if model is PolicyRule:
        value = getattr(_DEFAULT_RULE, name)
        return "no limit" if value is None else code(f"{value:g}")
    if isinstance(field.default, PolicyRule):
        return "see PolicyRule"
    value = None if field.default is PydanticUndefined else field.default
    if isinstance(value, float):
        return code(f"{value:.4g}")
    return code(repr(value))

"""Reservations that are placed only on nodes with certain labels.

What of a node's labels may be asked for is known to the fleet. Labels say where a reservation is
placed, and no more: a lease that has begun stays on its node, whatever becomes of the node's labels
before the server starts or after it, as a pod does that Kubernetes has placed. Who waits is planned
anew when a node changes its labels, and is promised another node if it was to be that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from gpudev_client import words
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.settings import GpuTypeSpec, NodeSpec

Labels = Mapping[str, str]

#: More nodes than an autoscaler can add to any type.
_ALL = 1_000_000
#: Of a label with more values a sentence says no more than these; the answer has all.
_SAID = 10


def offered(ctx: Context, gpu_type: str) -> list[Labels]:
    """What can be asked for of each node of a type; of one that can be added, what it is sure to
    have."""
    found: list[Labels] = [spec.labels for spec in _nodes(ctx, gpu_type)]
    if ctx.fleet.coming(gpu_type, 1):
        found.append(_of_new_nodes(ctx, gpu_type))
    return found


def nodes_with(ctx: Context, gpu_type: str, wanted: Labels) -> frozenset[str]:
    """The names of a type's nodes that have all labels of `wanted`. A node that an autoscaler can
    add is one of them if it could not belong to the type without."""
    found = {spec.name for spec in _nodes(ctx, gpu_type) if has(spec.labels, wanted)}
    if has(_of_new_nodes(ctx, gpu_type), wanted):
        found |= {one.name for one in ctx.fleet.coming(gpu_type, _ALL)}
    return frozenset(found)


def has(labels: Labels, wanted: Labels) -> bool:
    return wanted.items() <= labels.items()


def _nodes(ctx: Context, gpu_type: str) -> Iterable[NodeSpec]:
    return (spec for spec in ctx.fleet.nodes() if spec.gpu_type == gpu_type)


def _of_new_nodes(ctx: Context, gpu_type: str) -> Labels:
    spec = ctx.fleet.types().get(gpu_type)
    selector = spec.kubernetes.node_selector if spec and spec.kubernetes else {}
    return {key: value for key, value in selector.items() if ctx.settings.offers_label(key)}


def narrow(
    ctx: Context, gpu_type: str, wanted: Labels | None, area: frozenset[str] | None
) -> frozenset[str] | None:
    """The nodes of `area` that have the labels; None for all nodes."""
    if not wanted:
        return area
    found = nodes_with(ctx, gpu_type, wanted)
    return found if area is None else found & area


def narrowed(
    ctx: Context, rows: Sequence[Row[Any]], areas: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """`areas` of waiting reservations with those of labels, by reservation."""
    found = dict(areas)
    known: dict[tuple[str, frozenset[tuple[str, str]]], frozenset[str]] = {}
    for row in rows:
        if not row.node_labels:
            continue
        key = row.gpu_type, frozenset(row.node_labels.items())
        if key not in known:
            known[key] = nodes_with(ctx, row.gpu_type, row.node_labels)
        area = found.get(row.id)
        found[row.id] = known[key] if area is None else known[key] & area
    return found


# --- refusals ---------------------------------------------------------------------------------


def check(wanted: Labels, spec: GpuTypeSpec, nodes: Sequence[Labels]) -> None:
    """Whether any of a type's nodes has all that is wanted.

    Raises:
        Refusal: with the labels that there are, and their values.
    """
    if any(has(labels, wanted) for labels in nodes):
        return
    known = choices(nodes)
    for key, value in wanted.items():
        if key not in known:
            why = f"No node of {spec.name} has a label {key} that can be asked for."
        elif value not in known[key]:
            why = f"No node of {spec.name} has {key}={value}."
        else:
            continue
        break
    else:
        why = f"No node of {spec.name} has all of {words.labels(wanted)}."
    raise Refusal("invalid_input", f"{why} {said(known)}", field="node_labels", accepted=known)


def choices(nodes: Iterable[Labels]) -> dict[str, list[str]]:
    """The labels that there are, with their values."""
    found: dict[str, set[str]] = {}
    for labels in nodes:
        for key, value in labels.items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(found[key]) for key in sorted(found)}


def said(known: Mapping[str, Sequence[str]]) -> str:
    if not known:
        return "They have none that can be asked for: leave node_labels out."
    return f"There are: {'; '.join(_values(key, values) for key, values in known.items())}."


def _values(key: str, values: Sequence[str]) -> str:
    shown = [value or '""' for value in values[:_SAID]]
    more = f" and {len(values) - _SAID} more" if len(values) > _SAID else ""
    return f"{key}={' or '.join(shown)}{more}"

"""Nodes and pods, reduced to what the service needs: small, comparable, and without the noise that
heartbeats make. Pure functions of what the API server says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from gpudev_client.kubernetes import LABEL_PLACEHOLDER, LABEL_RANK, LABEL_RESERVATION
from gpudev_client.podstatus import Trouble, is_given_up, is_unheard, trouble

from .refusals import Object

CPU, MEMORY = "cpu", "memory"
ZONE = "topology.kubernetes.io/zone"
#: By which every kubelet names its node.
HOSTNAME = "kubernetes.io/hostname"
#: Of a pod that the kubelet itself runs from a file; the cluster cannot move it.
_MIRROR = "kubernetes.io/config.mirror"

_SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    **{letter: 1000.0 ** (at + 1) for at, letter in enumerate("kMGTPE")},
    **{f"{letter}i": 1024.0 ** (at + 1) for at, letter in enumerate("KMGTPE")},
}
_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]+\.)([a-zA-Z]{0,2})")

Amounts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster. `labels` are those that GPU types are told apart by, `offered` those
    that people may ask for; `silent_since`: from when on
    its kubelet has given no sign of life, as the cluster has noticed it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    capacity: Amounts
    allocatable: Amounts
    ready: bool
    cordoned: bool
    leaving: bool
    zone: str | None = None
    silent_since: datetime | None = None
    offered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has a node or is gpudev's own; ended ones of others do not count.

    `reservation` is None for pods that are not gpudev's. `system`: belongs to the node rather than
    to anybody who uses it. `over`: it has ended and holds nothing any more. `unheard`: its node
    gives no sign of life. `given_up`: with that node; what still runs there is no server any more.
    """

    namespace: str
    name: str
    uid: str
    node: str | None
    requests: Amounts
    reservation: str | None = None
    rank: int = 0
    placeholder: str | None = None
    system: bool = False
    over: bool = False
    leaving: bool = False
    running: bool = False
    unheard: bool = False
    given_up: bool = False
    trouble: Trouble | None = field(default=None, compare=True)

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"


def quantity(text: Any) -> float:
    """An amount as Kubernetes writes it: `500m`, `16Gi`, `1e3`.

    Raises:
        ValueError: it is none.
    """
    return _quantity(str(text).strip())


@lru_cache(maxsize=4096)
def _quantity(text: str) -> float:
    """A fleet's nodes all say the same few."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f"no quantity: {text!r:.40}")
    return float(match[1]) * _SUFFIXES[match[2]]


def node_reader(
    labels: frozenset[str],
    resources: frozenset[str],
    offers: Callable[[str], bool] = lambda _: False,
) -> Callable[[Object], Node]:
    """Reads nodes with what is asked of `labels`, and of `resources` besides CPU and memory; people
    may ask for the labels that `offers` says."""
    counted = resources | {CPU, MEMORY}

    def read(item: Object) -> Node:
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        found = metadata.get("labels") or {}
        said = {one.get("type"): one for one in status.get("conditions") or ()}
        ready = said.get("Ready") or {}
        return Node(
            name=metadata["name"],
            labels={name: found[name] for name in labels if name in found},
            taints=tuple(
                Taint(t.get("key", ""), t.get("value") or "", t.get("effect", ""))
                for t in spec.get("taints") or ()
            ),
            capacity=_amounts(status.get("capacity"), counted),
            allocatable=_amounts(status.get("allocatable"), counted),
            ready=ready.get("status") == "True",
            cordoned=bool(spec.get("unschedulable")),
            leaving="deletionTimestamp" in metadata,
            zone=found.get(ZONE),
            silent_since=_silent_since(ready),
            offered={name: value for name, value in found.items() if offers(name)},
        )

    return read


def pod_reader(namespace: str, resources: frozenset[str]) -> Callable[[Object], Pod | None]:
    """Reads pods; gpudev's own are those with its labels in its namespace."""
    counted = resources | {CPU, MEMORY}

    def read(item: Object) -> Pod | None:
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        labels = metadata.get("labels") or {}
        ours = metadata.get("namespace") == namespace
        reservation = labels.get(LABEL_RESERVATION) if ours else None
        over = status.get("phase") in {"Succeeded", "Failed"}
        node = spec.get("nodeName")
        placeholder = labels.get(LABEL_PLACEHOLDER) if ours else None
        if reservation is None and placeholder is None and (over or not node):
            return None
        return Pod(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata.get("uid") or "",
            node=node or None,
            requests=requests(spec, counted),
            reservation=reservation,
            rank=_rank(labels.get(LABEL_RANK)),
            placeholder=placeholder,
            system=_system(metadata),
            over=over,
            leaving="deletionTimestamp" in metadata,
            running=status.get("phase") == "Running",
            unheard=reservation is not None and is_unheard(item),
            given_up=reservation is not None and is_given_up(item),
            trouble=trouble(item) if reservation is not None else None,
        )

    return read


def requests(spec: Object, counted: frozenset[str]) -> dict[str, float]:
    """What the scheduler sets aside for a pod: its containers together, or one of its init
    containers where that alone needs more."""
    total: dict[str, float] = {}
    for container in spec.get("containers") or ():
        _add(total, _requested(container, counted))
    beside: dict[str, float] = {}
    peak: dict[str, float] = {}
    for container in spec.get("initContainers") or ():
        own = _requested(container, counted)
        if container.get("restartPolicy") == "Always":  # runs on beside the others
            _add(total, own)
            _add(beside, own)
            own = {}
        for name in own.keys() | beside.keys():
            peak[name] = max(peak.get(name, 0.0), own.get(name, 0.0) + beside.get(name, 0.0))
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0.0), amount)
    total.update(_requested(spec, counted))  # what a pod asks for as a whole
    _add(total, _amounts(spec.get("overhead"), counted))
    return total


def _silent_since(ready: Mapping[str, Any]) -> datetime | None:
    """`Unknown` is said by the cluster of a kubelet that says nothing; `False` says a kubelet that
    lives, and ends by itself what has to end there."""
    since = ready.get("lastTransitionTime")
    return datetime.fromisoformat(since) if ready.get("status") == "Unknown" and since else None


def _requested(part: Object, counted: frozenset[str]) -> dict[str, float]:
    asked = part.get("resources") or {}
    return _amounts({**(asked.get("limits") or {}), **(asked.get("requests") or {})}, counted)


def _amounts(values: Mapping[str, Any] | None, counted: frozenset[str]) -> dict[str, float]:
    return {name: quantity(value) for name, value in (values or {}).items() if name in counted}


def _add(total: dict[str, float], more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0.0) + amount


def _rank(label: str | None) -> int:
    return int(label) if label is not None and re.fullmatch("[0-9]{1,4}", label) else 0


def _system(metadata: Object) -> bool:
    owners = metadata.get("ownerReferences") or ()
    mirrored = _MIRROR in (metadata.get("annotations") or {})
    return mirrored or any(owner.get("kind") in {"DaemonSet", "Node"} for owner in owners)

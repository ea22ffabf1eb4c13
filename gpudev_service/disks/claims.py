"""Disks as Kubernetes has them, in plain values: names, labels, manifests, and what they say.

Pure: nothing here talks to the API server.

A disk is the claim with the highest generation among its claims that are `live`. A restoration
makes a claim of the next generation beside it and publishes it by one change of its label, so that
at every moment the disk has one whole live state. States of a claim:

- `making`: not published; `touched` is renewed while somebody works on it
- `live`: published; of several the one with the highest generation counts, the others are leftovers
- `purged`: the disk is gone; its snapshots go first, then this claim, the record of what is to do

A VolumeSnapshot is a snapshot when its content is ready; `source` marks one that a clone of a live
state draws on, `purged` one of a disk that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from gpudev_client.kubernetes import (
    LABEL_DISK,
    LABEL_MANAGED,
    LABEL_SNAPSHOT,
    LABEL_STATE,
    MANAGED_BY,
    STATE_INDEX,
)
from gpudev_service.disks.base import InvalidDiskId
from gpudev_service.disks.names import checked_id

Object = Mapping[str, Any]

#: Names have room for a prefix, a generation and what Kubernetes adds to names of claims of pods.
_LONGEST_ID = 40
_DNS = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")

#: Annotations. Which generation of its disk a claim is, the place of a snapshot in its disk's
#: order, and when somebody last worked on an object that is not published.
GENERATION = "hub.jupyter.org/gpudev-generation"
SEQUENCE = "hub.jupyter.org/gpudev-sequence"
TOUCHED = "hub.jupyter.org/gpudev-touched"
#: The scheduler's own: a class that waits for its first user binds as if it ran on that node.
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"


class State(StrEnum):
    """The value of the label `LABEL_STATE`."""

    MAKING = "making"
    LIVE = "live"
    PURGED = "purged"
    SOURCE = "source"
    INDEX = STATE_INDEX


def claim_name(disk_id: str, generation: int) -> str:
    """The claim of one generation of a disk. Which one is the disk now, only the claims tell."""
    return f"gpudev-{checked(disk_id)}-g{generation}"


def snapshot_name(snapshot_id: str) -> str:
    """The VolumeSnapshot of a snapshot."""
    return f"gpudev-{checked(snapshot_id)}"


def checked(key: str) -> str:
    """An id that can become part of an object's name; raises InvalidDiskId."""
    if len(checked_id(key)) > _LONGEST_ID or _DNS.fullmatch(key) is None:
        raise InvalidDiskId(
            f"an id of a volume has 1 to {_LONGEST_ID} lower-case letters, digits and `-`"
        )
    return key


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim of ours."""

    name: str
    version: str
    disk: str
    generation: int
    state: str
    touched: datetime
    bound: bool
    volume: str | None
    draws_on: str | None
    storage_class: str | None
    asked_bytes: int
    has_bytes: int
    deleting: bool
    selected_node: str | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be on it: it has no volume yet, and none of a copy to come."""
        return not self.bound and self.draws_on is None


def claim(found: Object) -> Claim:
    """What the API server says of a claim."""
    meta, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    source = spec.get("dataSource") or {}
    asked = quantity(spec["resources"]["requests"]["storage"])
    return Claim(
        name=meta["name"],
        version=meta["resourceVersion"],
        disk=labels.get(LABEL_DISK, ""),
        generation=int(notes.get(GENERATION, "0")),
        state=labels.get(LABEL_STATE, ""),
        touched=moment(notes.get(TOUCHED) or meta["creationTimestamp"]),
        bound=status.get("phase") == "Bound",
        volume=spec.get("volumeName"),
        draws_on=source.get("name") if source.get("kind") == "VolumeSnapshot" else None,
        storage_class=spec.get("storageClassName"),
        asked_bytes=asked,
        has_bytes=quantity((status.get("capacity") or {}).get("storage", "0")),
        deleting=meta.get("deletionTimestamp") is not None,
        selected_node=notes.get(_SELECTED_NODE),
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """A VolumeSnapshot of ours."""

    name: str
    disk: str
    snapshot: str
    state: str
    sequence: int
    touched: datetime
    taken_at: datetime
    ready: bool
    size_bytes: int
    error: str | None
    deleting: bool

    @property
    def is_complete(self) -> bool:
        """Whether it counts as a snapshot of its disk."""
        return self.ready and not self.deleting and not self.state


def taken(found: Object) -> Taken:
    """What the API server says of a VolumeSnapshot."""
    meta, status = found["metadata"], found.get("status") or {}
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    return Taken(
        name=meta["name"],
        disk=labels.get(LABEL_DISK, ""),
        snapshot=labels.get(LABEL_SNAPSHOT, ""),
        state=labels.get(LABEL_STATE, ""),
        sequence=int(notes.get(SEQUENCE, "0")),
        touched=moment(notes.get(TOUCHED) or meta["creationTimestamp"]),
        taken_at=moment(status.get("creationTime") or meta["creationTimestamp"]),
        ready=bool(status.get("readyToUse")),
        size_bytes=quantity(status.get("restoreSize") or "0"),
        error=(status.get("error") or {}).get("message"),
        deleting=meta.get("deletionTimestamp") is not None,
    )


def current(claims: Iterable[Claim]) -> Claim | None:
    """The live state among a disk's claims; None where there is no such disk."""
    live = [each for each in claims if each.state == State.LIVE and not each.deleting]
    return max(live, key=lambda each: each.generation, default=None)


def following(claims: Iterable[Claim]) -> int:
    """The generation of a disk's next claim; one that is just being removed keeps its name."""
    return max((each.generation for each in claims), default=0) + 1


# --- manifests --------------------------------------------------------------------------------


def new_claim(
    disk_id: str,
    generation: int,
    state: State,
    now: datetime,
    *,
    size_bytes: int,
    storage_class: str | None,
    draws_on: str | None = None,
    node: str | None = None,
) -> dict[str, Any]:
    """The manifest of a claim. `node` has a class that waits for its first user bind now, within
    reach of that node."""
    notes = {GENERATION: str(generation), TOUCHED: now.isoformat()}
    if node is not None:
        notes[_SELECTED_NODE] = node
    labels = _labels(disk_id) | {LABEL_STATE: str(state)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(disk_id, generation),
            "labels": labels,
            "annotations": notes,
        },
        "spec": claim_spec(size_bytes, storage_class, draws_on),
    }


def claim_spec(size_bytes: int, storage_class: str | None, draws_on: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(size_bytes)}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    if draws_on is not None:
        spec["dataSource"] = {
            "apiGroup": SNAPSHOT_GROUP,
            "kind": "VolumeSnapshot",
            "name": draws_on,
        }
    return spec


def new_snapshot(
    disk_id: str,
    snapshot_id: str,
    claim_name: str,
    sequence: int,
    now: datetime,
    *,
    snapshot_class: str | None,
    state: State | None = None,
) -> dict[str, Any]:
    """The manifest of a VolumeSnapshot."""
    labels = _labels(disk_id) | {LABEL_SNAPSHOT: checked(snapshot_id)}
    if state is not None:
        labels[LABEL_STATE] = str(state)
    spec: dict[str, Any] = {"source": {"persistentVolumeClaimName": claim_name}}
    if snapshot_class is not None:
        spec["volumeSnapshotClassName"] = snapshot_class
    return {
        "apiVersion": f"{SNAPSHOT_GROUP}/v1",
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": snapshot_name(snapshot_id),
            "labels": labels,
            "annotations": {SEQUENCE: str(sequence), TOUCHED: now.isoformat()},
        },
        "spec": spec,
    }


def _labels(disk_id: str) -> dict[str, str]:
    return {LABEL_MANAGED: MANAGED_BY, LABEL_DISK: checked(disk_id)}


# --- values -----------------------------------------------------------------------------------

_QUANTITY = re.compile(r"([0-9.]+)(?:([eE][+-]?[0-9]+)|([mkKMGTPE]i?|))")
_FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    unit + suffix: float(base**power)
    for power, unit in enumerate("KMGTPE", start=1)
    for suffix, base in (("", 1000), ("i", 1024))
}


def quantity(text: str) -> int:
    """Bytes, of a Kubernetes quantity like `10Gi`; raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, unit = match.groups()
    if not exponent and not unit and number.isdigit():
        return int(number)
    return round(float(number + (exponent or "")) * _FACTORS[unit or ""])


def moment(text: str) -> datetime:
    """A time as the API server writes it."""
    # Python reads six digits of a second, and others write nine.
    shorter = re.sub(r"(\.\d{6})\d+", r"\1", text)
    return datetime.fromisoformat(shorter).astimezone(UTC)

"""Where a volume's bytes can be reached from: zones or hosts, as its storage says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: Keys of zones in what drivers say of a volume: most have one of their own, with the same values.
_ZONE, _HOSTS = "/zone", ("/hostname", "/node")


@dataclass(frozen=True, slots=True)
class Reach:
    """A volume can be used on hosts in `zones` that are in `hosts`; None: it does not matter."""

    zones: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None

    def covers(self, zone: str | None, host: str) -> bool:
        """Whether a machine can use the volume. One that does not say its zone cannot be sure."""
        in_zone = self.zones is None or zone in self.zones
        return in_zone and (self.hosts is None or host in self.hosts)

    def to_json(self) -> dict[str, Any]:
        return {"zones": _list(self.zones), "hosts": _list(self.hosts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reach:
        return cls(zones=_tuple(value.get("zones")), hosts=_tuple(value.get("hosts")))


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def reach_of(volume: Mapping[str, Any]) -> Reach | None:
    """What a PersistentVolume's node affinity means; None where it can be used everywhere.

    Keys that are neither zones nor hosts say nothing here; the scheduler heeds them all the same.
    """
    required = ((volume["spec"].get("nodeAffinity") or {}).get("required")) or {}
    zones: set[str] | None = None
    hosts: set[str] | None = None
    terms = required.get("nodeSelectorTerms") or []
    for at, term in enumerate(terms):
        here, there = _of_term(term)
        # One of the terms is enough; one that says nothing of zones allows all of them.
        zones = here if at == 0 else _either(zones, here)
        hosts = there if at == 0 else _either(hosts, there)
    if zones is None and hosts is None:
        return None
    return Reach(
        zones=None if zones is None else tuple(sorted(zones)),
        hosts=None if hosts is None else tuple(sorted(hosts)),
    )


def _of_term(term: Mapping[str, Any]) -> tuple[set[str] | None, set[str] | None]:
    zones: set[str] | None = None
    hosts: set[str] | None = None
    for rule in term.get("matchExpressions") or []:
        if rule.get("operator") != "In":
            continue
        values = set(rule["values"])
        if rule["key"].endswith(_ZONE):
            zones = values if zones is None else zones & values
        elif rule["key"].endswith(_HOSTS):
            hosts = values if hosts is None else hosts & values
    return zones, hosts


def _either(one: set[str] | None, other: set[str] | None) -> set[str] | None:
    return None if one is None or other is None else one | other


def first_near(nodes: Iterable[Mapping[str, Any]], reach: Reach | None) -> str | None:
    """The name of the first of the cluster's nodes that is within reach."""
    for node in nodes:
        name: str = node["metadata"]["name"]
        labels = node["metadata"].get("labels") or {}
        zone = labels.get("topology.kubernetes.io/zone")
        host = labels.get("kubernetes.io/hostname", name)
        if reach is None or reach.covers(zone, name) or reach.covers(zone, host):
            return name
    return None

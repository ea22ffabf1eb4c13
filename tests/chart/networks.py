"""Who reaches whom, as Kubernetes' rules say: a reading of NetworkPolicies, for tests.

A connection goes through when the sender's policies let it out and the receiver's let it in. A pod
that no policy of a direction selects is open in that direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """One end of a connection. `ports` are its named ports."""

    name: str
    labels: Mapping[str, str]
    namespace: str = "lab"
    ports: Mapping[str, int] = field(default_factory=dict)
    #: None of the pods is at this address, where a policy says addresses.
    address: str = "10.244.0.5"


@dataclass(frozen=True)
class Outside:
    """An address where there is no pod."""

    address: str


End = Pod | Outside


class Network:
    """The policies of one namespace."""

    def __init__(self, policies: Iterable[Policy], namespace: str = "lab") -> None:
        self.policies = list(policies)
        self.namespace = namespace

    def lets(self, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection from one to the other goes through."""
        out = self._lets("Egress", source, target, target, port, protocol)
        return out and self._lets("Ingress", target, source, target, port, protocol)

    def _lets(self, way: str, owner: End, peer: End, target: End, port: int, protocol: str) -> bool:
        selecting = [each for each in self.policies if self._selects(each, way, owner)]
        if not selecting:
            return True
        direction, ends = ("egress", "to") if way == "Egress" else ("ingress", "from")
        return any(
            self._is_peer(rule.get(ends), peer)
            and _is_port(rule.get("ports"), target, port, protocol)
            for policy in selecting
            for rule in policy["spec"].get(direction) or ()
        )

    def _selects(self, policy: Policy, way: str, owner: End) -> bool:
        return (
            isinstance(owner, Pod)
            and owner.namespace == self.namespace
            and way in policy["spec"]["policyTypes"]
            and _matches(policy["spec"]["podSelector"], owner.labels)
        )

    def _is_peer(self, peers: list[Any] | None, end: End) -> bool:
        return not peers or any(self._is(peer, end) for peer in peers)

    def _is(self, peer: Mapping[str, Any], end: End) -> bool:
        if "ipBlock" in peer:
            return _in_block(peer["ipBlock"], end.address)
        if not isinstance(end, Pod):
            return False
        if "namespaceSelector" in peer:
            labels = {"kubernetes.io/metadata.name": end.namespace}
            there = _matches(peer["namespaceSelector"], labels)
        else:
            there = end.namespace == self.namespace
        return there and _matches(peer.get("podSelector") or {}, end.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    where = ip_address(address)
    return where in ip_network(block["cidr"]) and not any(
        where in ip_network(hole) for hole in block.get("except") or ()
    )


def _is_port(ports: list[Any] | None, target: End, port: int, protocol: str) -> bool:
    if not ports:
        return True
    named = target.ports if isinstance(target, Pod) else {}
    return any(
        each.get("protocol", "TCP") == protocol and named.get(each["port"], each["port"]) == port
        for each in ports
    )


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    exact = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in exact.items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        key, operator = rule["key"], rule["operator"]
        if operator == "Exists" and key not in labels:
            return False
        if operator == "In" and labels.get(key) not in rule["values"]:
            return False
        if operator not in {"Exists", "In"}:
            raise NotImplementedError(operator)
    return True

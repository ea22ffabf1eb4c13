"""The cluster's network on this machine: a bridge, forwarding, and the way out; and its undoing.

One machine has room for one cluster: kube-proxy's chains and the addresses are the machine's.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .place import ClusterError, Place, State

BRIDGE = "gpudev0"
GATEWAY = "10.214.0.1"
PODS = "10.214.0.0/16"
SERVICES = "10.215.0.0/16"
KUBERNETES_ADDRESS = "10.215.0.1"
DNS_ADDRESS = "10.215.0.10"
DOMAIN = "cluster.local"
_COMMENT = "gpudev-cluster"
_RULES = (
    ("nat", "POSTROUTING", ["-s", PODS, "!", "-d", PODS, "-j", "MASQUERADE"]),
    ("filter", "FORWARD", ["-s", PODS, "-j", "ACCEPT"]),
    ("filter", "FORWARD", ["-d", PODS, "-j", "ACCEPT"]),
)
# kube-proxy sets some as well; all that may change is put back at the end.
_SWITCHES = {
    "net/ipv4/ip_forward": "1",
    # Without it the answer of a pod to a neighbour that asked a service's address would go straight
    # over the bridge, and come from another address than the one that was asked.
    "net/bridge/bridge-nf-call-iptables": "1",
}
_WATCHED = ("net/ipv4/conf/all/route_localnet", "net/netfilter/nf_conntrack_max")
_SYS = Path("/proc/sys")


def owner() -> str | None:
    """The folder of the cluster that has this machine's network; None when nobody has."""
    answer = _run(["ip", "-json", "link", "show", BRIDGE], check=False)
    if answer.returncode != 0:
        return None
    return str(json.loads(answer.stdout)[0].get("ifalias", "an unknown folder"))


def named(place: Place) -> str:
    """What `owner` says of a place that has the network."""
    return str(place.run)[:255]


def up(place: Place, state: State) -> None:
    """Makes the bridge, lets packets through, and notes how the machine was before."""
    before = {
        name: (_SYS / name).read_text().strip()
        for name in (*_SWITCHES, *_WATCHED)
        if (_SYS / name).exists()
    }
    if missing := _SWITCHES.keys() - before.keys():
        raise ClusterError(f"This kernel has no {' and no '.join(sorted(missing))} (br_netfilter).")
    state.note("switches", before)
    _run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    _run(["ip", "link", "set", BRIDGE, "alias", named(place), "up"])
    _run(["ip", "address", "add", f"{GATEWAY}/16", "dev", BRIDGE])
    # kube-proxy changes the address of what is under way; without any route it would not even be.
    _run(["ip", "route", "add", SERVICES, "dev", BRIDGE])
    for name, value in _SWITCHES.items():
        (_SYS / name).write_text(value)
    for table, chain, rule in _RULES:
        _run(_iptables(table, "-I", chain, rule))


def down(state: State | None) -> None:
    """Takes away what `up` and kube-proxy made; what is gone already is fine."""
    for table, chain, rule in _RULES:
        while _run(_iptables(table, "-D", chain, rule), check=False).returncode == 0:
            pass  # once more, in case a start that failed had made it twice
    _remove_kubernetes_chains()
    if owner() is not None:
        ports = json.loads(_run(["ip", "-json", "link", "show", "master", BRIDGE]).stdout or "[]")
        for port in ports:  # of pods whose end nobody saw to
            _run(["ip", "link", "delete", port["ifname"]], check=False)
        _run(["ip", "link", "delete", BRIDGE])
    for name, value in ((state and state.noted("switches")) or {}).items():
        if (_SYS / name).read_text().strip() != value:
            (_SYS / name).write_text(value)


def leftovers() -> list[str]:
    """What is there of a cluster's network, in words."""
    found = [f"the interface {BRIDGE}"] if owner() is not None else []
    for program in ("iptables-save", "ip6tables-save"):
        text = _run([program]).stdout
        lines = [line for line in text.splitlines() if "KUBE-" in line or _COMMENT in line]
        found += [f"{program}: {line}" for line in lines]
    return found


def _remove_kubernetes_chains() -> None:
    """Empties and deletes the chains that kube-proxy and the kubelet made, in every table.

    One program's work, instead of `kube-proxy --cleanup`, which leaves those of the kubelet.
    """
    for program in ("iptables", "ip6tables"):
        table, script = "", []
        for line in _run([f"{program}-save"]).stdout.splitlines():
            if line.startswith("*"):
                table, chains, rules = line[1:], [], []
            elif line.startswith(":KUBE-"):
                chains.append(line[1:].split()[0])
            elif line.startswith("-A ") and not line.startswith("-A KUBE-") and "-j KUBE-" in line:
                rules.append("-D" + line[2:])
            elif line == "COMMIT" and (chains or rules):
                emptied = [f":{chain} - [0:0]" for chain in chains]
                gone = [f"-X {chain}" for chain in chains]
                script += [f"*{table}", *emptied, *rules, *gone, "COMMIT"]
        if script:
            _run([f"{program}-restore", "--noflush"], text="\n".join(script) + "\n")


def _iptables(table: str, action: str, chain: str, rule: list[str]) -> list[str]:
    comment = ["-m", "comment", "--comment", _COMMENT]
    return ["iptables", "-w", "-t", table, action, chain, *rule[:-2], *comment, *rule[-2:]]


def _run(
    command: list[str], *, check: bool = True, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done

"""Whether a cluster can run on this machine, and what else it would need."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from . import programs
from .place import Place

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_SYSTEM = "`make test SYSTEM=1` installs it on Debian, as root"
_PROGRAMS = ("buildah", "busybox", "containerd", "ctr", "debootstrap", "ip", "iptables", "runc")
_CNI = Path("/usr/lib/cni/bridge")
_BRIDGE_SWITCH = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def machine_obstacle() -> str | None:
    """Why no cluster can run here, in words for people; None when one can."""
    if sys.platform != "linux":
        return "a cluster runs on Linux only"
    if os.geteuid() != 0:
        return "a cluster needs root"
    for program in _PROGRAMS:
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed ({_SYSTEM})"
    if not _CNI.exists():
        return f"the CNI plugins are not installed ({_SYSTEM})"
    if not _BRIDGE_SWITCH.exists():
        return "the kernel has no br_netfilter"
    return None


def obstacle(place: Place) -> str | None:
    """The same for the tests, which do not build what takes minutes."""
    reason = machine_obstacle()
    if reason is None and programs.outdated(place, programs.MODULES):
        return "the cluster's programs are not built (python -m tools.cluster prepare)"
    return reason

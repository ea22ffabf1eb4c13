"""What the cluster's programs leave outside of their processes: mounts, folders, cgroups."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

import psutil

from . import node, processes
from .place import ClusterError, Place, State

#: Folders with paths that programs do not let be chosen; removed unless they were there before.
_FIXED = (
    Path("/var/lib/kubelet"),
    Path("/var/lib/cni"),
    Path("/var/log/containers"),
    Path("/var/log/pods"),
    Path("/run/containerd"),
    Path("/run/netns"),
)
_CGROUPS = Path("/sys/fs/cgroup")
_MNT_DETACH = 2


def note(state: State) -> None:
    """Notes which folders are not the cluster's, before it makes any."""
    state.note("foreign", [str(path) for path in _FIXED if path.exists()])


def remove(place: Place, state: State) -> None:
    """Unmounts and removes everything; keeps the logs for a look at them."""
    _end_containers(place)
    unmount_all(place.run)
    foreign = set(state.noted("foreign") or [])
    for path in _FIXED:
        if str(path) not in foreign:
            shutil.rmtree(path, ignore_errors=True)
    for group in _groups(place):
        with contextlib.suppress(FileNotFoundError):
            group.rmdir()
    if place.logs.exists():
        shutil.rmtree(place.last_logs, ignore_errors=True)
        place.logs.rename(place.last_logs)
    if place.audit_log.exists():
        place.audit_log.rename(place.last_logs / "audit.log")
    shutil.rmtree(place.run)


def found(place: Place) -> list[str]:
    """What is there, in words."""
    left = [f"the mount {path}" for path in mounts(place.run)]
    left += [f"the cgroup {path}" for path in _groups(place)]
    if place.run.exists():
        left.append(f"the folder {place.run}")
    return left


def mounts(folder: Path) -> list[Path]:
    """Mount points below a folder, the deepest first."""
    inside = f"{folder}/"
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")  # a space is written \040
        if point.startswith(inside):
            points.append(Path(point))
    return sorted(points, key=lambda path: len(path.parts), reverse=True)


def _end_containers(place: Place) -> None:
    """Kills what still runs in containers, as it does when containerd's shims were killed."""
    pids: set[int] = set()
    for group in _groups(place):
        pids |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    left = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    processes.kill(left)


def _groups(place: Place) -> list[Path]:
    """The cgroups of containers, the deepest first."""
    groups: list[Path] = []
    name = node.cgroup(place)
    for top in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")):  # version 2 has one hierarchy only
        if top.exists():
            groups += [top, *(path for path in top.rglob("*") if path.is_dir())]
    return sorted(groups, key=lambda path: len(path.parts), reverse=True)


def unmount_all(folder: Path) -> None:
    """Takes away all mounts below a folder.

    The highest goes first and takes along what is in it: what lies below a folder that was mounted
    twice cannot be reached.

    Raises:
        ClusterError: one cannot be unmounted.
    """
    while points := mounts(folder):
        _unmount(points[-1])


def _unmount(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise ClusterError(f"{path} cannot be unmounted: {os.strerror(number)}")

"""The programs that Go builds: which there are, and building those that are missing or outdated.

Each module below `go/` pins what it needs in its go.mod and go.sum. The Go build cache is the
machine's usual one; what it makes is kept in `.artifacts/cluster/bin`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .golang import find_go
from .place import HERE, ClusterError, Place, default_place

KUBERNETES = "1.36.3"
_BASE = "k8s.io/component-base/version"
_MINOR = KUBERNETES.split(".")[1]
# Clients cannot parse the version of a Kubernetes that was not told its own.
_VERSION = f"-X {_BASE}.gitVersion=v{KUBERNETES} -X {_BASE}.gitMajor=1 -X {_BASE}.gitMinor={_MINOR}"


@dataclass(frozen=True)
class Module:
    """Programs of one Go module below `go/`, built together: name and package."""

    programs: Mapping[str, str]
    folder: str
    flags: str = ""
    #: Files of the modules that it requires, which the cluster wants as well: module and folder.
    files: Mapping[str, str] = field(default_factory=dict)


_OWN = "gpudev.invalid/cluster/addons"
_CSI = "github.com/kubernetes-csi"
MODULES: Mapping[str, Module] = {
    "control": Module(
        {
            "etcd": "go.etcd.io/etcd/server/v3",
            "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
            "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
            "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        },
        flags=_VERSION,
        folder="kubernetes",
    ),
    "node": Module(
        {
            "kubelet": "k8s.io/kubernetes/cmd/kubelet",
            "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        },
        flags=_VERSION,
        folder="kubernetes",
    ),
    "addons": Module(
        {
            "coredns": f"{_OWN}/coredns",
            "driver": f"{_OWN}/driver",
            "csi-provisioner": f"{_CSI}/external-provisioner/v6/cmd/csi-provisioner",
            "csi-resizer": f"{_CSI}/external-resizer/v2/cmd/csi-resizer",
            "csi-snapshotter": f"{_CSI}/external-snapshotter/v8/cmd/csi-snapshotter",
            "snapshot-controller": f"{_CSI}/external-snapshotter/v8/cmd/snapshot-controller",
        },
        folder="addons",
        files={f"{_CSI}/external-snapshotter/client/v8": "config/crd"},
    ),
    # Below: wanted by some tests only, and built when one asks for them.
    "fleet": Module(
        {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        folder="addons",
        files={"sigs.k8s.io/kwok": "kustomize/stage"},
    ),
    "sanity": Module({"csi-sanity": f"{_CSI}/csi-test/v5/cmd/csi-sanity"}, folder="addons"),
    "chart": Module(
        {
            "helm": "helm.sh/helm/v4/cmd/helm",
            "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
        },
        folder="addons",
    ),
}
#: What `up` starts; the others are built by `ensure`, or all by `prepare`.
RUNNING = ("control", "node", "addons")


@dataclass(frozen=True)
class Built:
    """A module that was built now, and how long it took."""

    module: str
    seconds: float


def outdated(place: Place, names: Iterable[str]) -> list[str]:
    """Which of the modules are not built, or from other sources."""
    return [name for name in names if not _is_current(place, name)]


def build(place: Place, names: Iterable[str]) -> list[Built]:
    """Builds what is missing or outdated, one module after the other.

    Raises:
        ClusterError: there is no Go, or it fails; with what it said.
    """
    wanted = outdated(place, names)
    if not wanted:
        return []
    go = find_go(place)
    built = []
    for name in wanted:
        before = time.monotonic()
        _build(place, go, name)
        built.append(Built(name, time.monotonic() - before))
    return built


def _build(place: Place, go: str, name: str) -> None:
    module = MODULES[name]
    draft = place.bin / f".{name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    packages = list(module.programs.values())
    _go(
        go,
        name,
        "build",
        "-trimpath",
        f"-ldflags=-s -w {module.flags}",
        "-o",
        f"{draft}/",
        *packages,
    )
    for program, package in module.programs.items():
        (draft / _output(package)).replace(place.bin / program)
    for required, folder in module.files.items():
        answer = _go(go, name, "list", "-m", "-json", required)
        target = place.bin / f"{name}-files"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(json.loads(answer)["Dir"]) / folder, target)
    shutil.rmtree(draft)
    _stamp(place, name).write_text(_digest(name))


def _output(package: str) -> str:
    """What Go calls the program of a package: its last part that is no version."""
    parts = package.split("/")
    last = parts[-1]
    return parts[-2] if last[0] == "v" and last[1:].isdigit() else last


def _go(go: str, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [go, *arguments],
        cwd=_folder(name),
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise ClusterError(f"go {arguments[0]} in {_folder(name)} failed:\n{lines}")
    return done.stdout


def _is_current(place: Place, name: str) -> bool:
    stamp = _stamp(place, name)
    there = all((place.bin / program).exists() for program in MODULES[name].programs)
    if place != default_place():
        return there  # another tree's, which builds them from its own sources
    return there and stamp.exists() and stamp.read_text() == _digest(name)


def _digest(name: str) -> str:
    digest = hashlib.sha256(repr(MODULES[name]).encode())
    folder = _folder(name)
    own = [
        folder / package.removeprefix(_OWN + "/")
        for package in MODULES[name].programs.values()
        if package.startswith(_OWN)
    ]
    for path in [
        folder / "go.mod",
        folder / "go.sum",
        *sorted(f for d in own for f in d.iterdir()),
    ]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _folder(name: str) -> Path:
    return HERE / "go" / MODULES[name].folder


def _stamp(place: Place, name: str) -> Path:
    return place.bin / f".{name}.stamp"

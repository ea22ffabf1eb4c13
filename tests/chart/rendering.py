"""Renders the chart with Helm, as `helm template` does, and gives back the manifests."""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart import programs
from tests.tiers import ROOT

CHART = ROOT / "helm" / "gpudev"
NAMESPACE = "lab"

Manifest = dict[str, Any]


@functools.cache
def prepared(chart: Path = CHART) -> Path:
    """A copy of a chart with the chart that it depends on, which git does not keep."""
    upstream = programs.upstream_chart()
    assert upstream is not None
    target = Path(tempfile.mkdtemp(prefix="gpudev-chart-")) / "gpudev"
    shutil.copytree(chart, target, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    (target / "charts").mkdir()
    if upstream.is_dir():
        shutil.copytree(upstream, target / "charts" / "jupyterhub")
    else:
        shutil.copy(upstream, target / "charts")
    return target


@dataclass(frozen=True)
class Said:
    """What Helm answered."""

    code: int
    out: str
    err: str


def helm(*arguments: str, values: Iterable[Mapping[str, Any]] = ()) -> Said:
    """Runs Helm with these values, each over those before."""
    program = programs.helm()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="gpudev-values-") as folder:
        files = []
        for index, each in enumerate(values):
            file = Path(folder) / f"{index}.json"
            file.write_text(json.dumps(each))
            files.append(f"--values={file}")
        done = subprocess.run(
            [program, *arguments, *files],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HELM_CACHE_HOME": folder},
            timeout=120,
        )
    return Said(done.returncode, done.stdout, done.stderr)


def template(*values: Mapping[str, Any], upgrade: bool = False) -> Said:
    """`helm template` with these values."""
    arguments = ["template", "gpudev", str(prepared()), f"--namespace={NAMESPACE}"]
    return helm(*arguments, *(["--is-upgrade"] if upgrade else []), values=values)


@dataclass(frozen=True)
class Rendered:
    """All that an installation makes, hooks included."""

    manifests: list[Manifest]
    text: str

    def all(self, *kinds: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        found = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind}/{name}"
        return found[0]

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.all(kind)}

    def values(self) -> Any:
        """What the Hub reads: the values of the jupyterhub chart."""
        return yaml.safe_load(secret(self.one("Secret", "hub"), "values.yaml"))

    def pods(self) -> dict[str, Manifest]:
        """The templates of all pods, by kind and name of what makes them."""
        return {
            f"{each['kind']}/{each['metadata']['name']}": each["spec"]["template"]
            for each in self.all("Deployment", "StatefulSet", "DaemonSet", "Job")
        }


@functools.cache
def _rendered(values: str, upgrade: bool) -> Rendered:
    said = template(*json.loads(values), upgrade=upgrade)
    assert said.code == 0, said.err
    return Rendered([each for each in yaml.safe_load_all(said.out) if each], said.out)


def render(*values: Mapping[str, Any], upgrade: bool = False) -> Rendered:
    """The manifests with these values, each over those before."""
    found = _rendered(json.dumps(values), upgrade)
    return Rendered(copy.deepcopy(found.manifests), found.text)


def example(name: str) -> dict[str, Any]:
    """The values of an example."""
    values: dict[str, Any] = yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())
    return values


EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
#: The least that can be installed.
LEAST: dict[str, Any] = {"database": {"existingSecret": {"name": "database"}}}
TRIAL: dict[str, Any] = {"database": {"trial": {"enabled": True}}}
EVERYTHING: dict[str, Any] = {
    **TRIAL,
    "publicUrl": "https://hub.example.org",
    "gpuTypes": {"h100": {"gpus_per_node": 8, "cpus": 64, "memory_gb": 512}},
    "extraConfig": {"mine": "c.GpuDev.history_days = 30"},
    "monitoring": {
        "monitor": "service",
        "rules": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "service": {
        "extraEnv": [{"name": "A", "value": "b"}],
        "labels": {"team": "ml"},
        "annotations": {"note": "x"},
        "nodeSelector": {"core": "true"},
        "tolerations": [{"key": "core", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "serviceAccount": {"annotations": {"cloud/role": "gpudev"}},
        "image": {"pullSecrets": ["registry"]},
    },
    "networkPolicy": {
        "dns": {"cidrs": ["169.254.20.10/32"]},
        "users": {
            "blockedCidrs": ["203.0.113.7/32", "2001:db8::7/128"],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}],
        },
        "service": {"extraEgress": [{"to": [{"ipBlock": {"cidr": "10.9.9.9/32"}}]}]},
    },
    "jupyterhub": {
        "imagePullSecrets": ["everywhere"],
        "hub": {"baseUrl": "/jupyter/"},
        "ingress": {"enabled": True, "hosts": ["hub.example.org"]},
    },
}


def secret(manifest: Manifest, key: str) -> str:
    """A value of a Secret, readable."""
    return base64.b64decode(manifest["data"][key]).decode()

"""What the tests of the chart need besides Python, and where it is found.

Helm and kubeconform are built by Go like the programs of the cluster (`python -m tools.cluster
prepare`), or found on PATH. The chart that ours depends on is fetched by `helm dependency update
helm/gpudev`; where it cannot be downloaded, GPUDEV_Z2JH_CHART names its archive or folder.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.tiers import ROOT
from tools.cluster.golang import find_go
from tools.cluster.place import ClusterError, default_place
from tools.cluster.programs import KUBERNETES

UPSTREAM = "GPUDEV_Z2JH_CHART"


def helm() -> str | None:
    """Helm's path."""
    return _program("helm")


def kubeconform() -> str | None:
    """The path of kubeconform, which checks manifests against schemas."""
    return _program("kubeconform")


def upstream_chart() -> Path | None:
    """The jupyterhub chart, as an archive or a folder."""
    named = os.environ.get(UPSTREAM)
    if named:
        return Path(named)
    fetched = sorted((ROOT / "helm" / "gpudev" / "charts").glob("jupyterhub-*.tgz"))
    return fetched[-1] if fetched else None


@functools.cache
def openapi() -> Path | None:
    """Kubernetes' OpenAPI document, out of the Go module of the version that the cluster runs."""
    try:
        go = find_go(default_place())
    except ClusterError:
        return None
    with tempfile.TemporaryDirectory(prefix="gpudev-go-") as folder:
        done = subprocess.run(
            [go, "mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        return None
    return Path(json.loads(done.stdout)["Dir"]) / "api" / "openapi-spec" / "swagger.json"


def obstacle() -> str | None:
    """Why the chart cannot be rendered and checked here; None when it can."""
    for name, found in (("helm", helm()), ("kubeconform", kubeconform())):
        if found is None:
            return f"{name} is neither built (python -m tools.cluster prepare) nor on PATH"
    upstream = upstream_chart()
    if upstream is None:
        return (
            f"the jupyterhub chart is not there (helm dependency update helm/gpudev, or {UPSTREAM})"
        )
    if not upstream.exists():
        return f"{UPSTREAM} names {upstream}, which is not there"
    if openapi() is None:
        return "Go is not there to bring Kubernetes' OpenAPI document"
    return None


def _program(name: str) -> str | None:
    built = default_place().bin / name
    return str(built) if built.exists() else shutil.which(name)

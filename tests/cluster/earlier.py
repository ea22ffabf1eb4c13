"""An installation as the first chart made it, with the tables of that time and people's leases in
them.

`charts/first.tar.gz` is `git archive --format=tar.gz d8f5f14 helm/gpudev`, kept since a clone need
not have all history. The image is this tree's own in both states: what an older service would have
left in the tables is not shown by that, only what becomes of the tables.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

from .installation import Installation, until

_CHART = Path(__file__).with_name("charts") / "first.tar.gz"
#: The tables when the chart first came.
_TABLES = "0005_images"
_POD = "gpudev-earlier"
_SCRIPT = """
import asyncio, os, sys
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store

async def main():
    store = Store(os.environ["GPUDEV_DB_URL"])
    print(await migrate.downgrade(store, sys.argv[1]))
    await store.close()

asyncio.run(main())
"""


@functools.cache
def first_chart() -> Path:
    """The chart as it was when it first came."""
    folder = Path(tempfile.mkdtemp(prefix="gpudev-first-chart-"))
    subprocess.run(["tar", "-xzf", str(_CHART), f"--directory={folder}"], check=True)
    return folder / "helm" / "gpudev"


def go_back(installed: Installation) -> None:
    """Makes the release what the first chart makes, ends the service, and takes its tables back;
    the service stays away until the next upgrade."""
    kubectl = installed.kubectl
    installed.upgrade(chart=first_chart())
    template = kubectl.get("deployment", "gpudev")["spec"]["template"]
    kubectl("scale", "deployment/gpudev", "--replicas=0")
    service = "--selector=app.kubernetes.io/component=service"
    until(lambda: not kubectl.get("pods", service)["items"], "the service has ended")
    (container,) = template["spec"]["containers"]
    for unneeded in ("startupProbe", "livenessProbe", "readinessProbe", "args"):
        del container[unneeded]
    container["command"] = ["python3", "-c", _SCRIPT, _TABLES]
    spec = {**template["spec"], "restartPolicy": "Never"}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _POD}, "spec": spec})
    kubectl.wait(f"pod/{_POD}", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("logs", _POD).strip().endswith(_TABLES)
    kubectl("delete", "pod", _POD)

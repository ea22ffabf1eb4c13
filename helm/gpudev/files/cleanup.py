"""After `helm uninstall`: ends the pods of leases, and what belongs to them: also the folders that
the nodes of a lease share, which end with it. Disks stay.

The Hub and the service made these objects, so Helm does not know them. Runs in the service's image,
with Python's standard library alone: whatever version of gpudev is being removed, this works.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path

#: All of a lease, and whatever else the service has running: pods that list what a snapshot has,
#: and those that ask an autoscaler for a node.
SELECTORS = (
    "hub.jupyter.org/gpudev-reservation",
    "hub.jupyter.org/gpudev-state=index",
    "hub.jupyter.org/gpudev-placeholder",
)
#: Volume claims and snapshots of disks have none of these labels: people's work outlives the
#: installation.
KINDS = ("api/v1/%s/services", "apis/networking.k8s.io/v1/%s/networkpolicies", "api/v1/%s/pods")
#: The claims of folders that the nodes of one lease share, and of nothing that is a disk's.
SHARED = (
    "app.kubernetes.io/managed-by=gpudev,hub.jupyter.org/gpudev-reservation,"
    "!hub.jupyter.org/gpudev-disk"
)
CLAIMS = "api/v1/%s/persistentvolumeclaims"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE = float(os.environ.get("GPUDEV_CLEANUP_SECONDS", "120"))


def call(method: str, path: str, selector: str = "") -> dict:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{port}/{path}?labelSelector={urllib.parse.quote(selector)}",
        method=method,
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"},
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=trusted, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def end(path: str, selector: str, deadline: float) -> bool:
    """Deletes what the selector finds, and waits until it is gone."""
    # One by one: not every kind can be deleted as a collection in every version.
    for item in call("GET", path, selector)["items"]:
        name = item["metadata"]["name"]
        print(f"deleting {path.rpartition('/')[2]} {name}", flush=True)  # noqa: T201
        try:
            call("DELETE", f"{path}/{name}")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
    while left := [item["metadata"]["name"] for item in call("GET", path, selector)["items"]]:
        if time.monotonic() > deadline:
            print(f"still there: {', '.join(left)}", file=sys.stderr)  # noqa: T201
            return False
        time.sleep(1)
    return True


def main() -> int:
    namespace = f"namespaces/{(ACCOUNT / 'namespace').read_text()}"
    deadline = time.monotonic() + PATIENCE
    gone = [end(kind % namespace, selector, deadline) for selector in SELECTORS for kind in KINDS]
    gone.append(end(CLAIMS % namespace, SHARED, deadline))  # a pod that uses one would keep it
    return 0 if all(gone) else 1


if __name__ == "__main__":
    sys.exit(main())

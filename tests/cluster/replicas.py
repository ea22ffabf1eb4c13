"""The replicas of an installation's service, which are killed here, and what was done to pods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from gpudev_client.models import Health
from tests.fixtures.processes import kill_all

from .installation import Installation, until

_SERVICE = "--selector=app.kubernetes.io/component=service"
_PATH = "services/gpudev/api/v1/health"


@dataclass(frozen=True)
class Replica:
    """One pod of the service, as it was seen."""

    pod: str
    address: str

    def leads(self) -> bool:
        """Asked at the pod's own address; one that does not answer does not lead."""
        try:
            answer = httpx.get(f"http://{self.address}:10101/{_PATH}", timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        return Health.model_validate_json(answer.text).leader


def replicas(installed: Installation) -> list[Replica]:
    """Those whose pods have addresses."""
    pods: list[dict[str, Any]] = installed.kubectl.get("pods", _SERVICE)["items"]
    return [
        Replica(pod["metadata"]["name"], pod["status"]["podIP"])
        for pod in pods
        if pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]
    ]


def leader_and_standby(installed: Installation) -> tuple[Replica, Replica]:
    """Both, once there are two and one of them leads."""
    found: list[Replica] = []

    def there() -> bool:
        found[:] = sorted(replicas(installed), key=Replica.leads, reverse=True)
        return [each.leads() for each in found] == [True, False]

    until(there, "one of two replicas leads")
    return found[0], found[1]


def other_leads(installed: Installation, leader: Replica) -> bool:
    """Whether one of the others leads by now."""
    return any(each.leads() for each in replicas(installed) if each != leader)


def lose(installed: Installation, replica: Replica) -> None:
    """What becomes of it when its node is lost: its processes end without a word, keeper and
    service, and its pod is gone."""
    kill_all("HOSTNAME", replica.pod)
    installed.kubectl("delete", "pod", replica.pod, "--grace-period=0", "--force")


def created(installed: Installation, prefix: str) -> list[str]:
    """The pods whose names begin so that the Hub or the service has made, by the apiserver's own
    record; one that was made twice is there twice."""
    found = []
    for line in installed.cluster.place.audit_log.read_text().splitlines():
        entry = json.loads(line)
        what = entry.get("objectRef", {})
        made = entry["verb"] == "create" and entry.get("responseStatus", {}).get("code") == 201
        is_pod = what.get("resource") == "pods" and "subresource" not in what
        if made and is_pod and what.get("namespace") == installed.namespace:
            found.append(str(what.get("name", "")))
    return [name for name in found if name.startswith(prefix)]

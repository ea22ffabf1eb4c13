"""The restricted Pod Security Standard, as Kubernetes checks it at the door of a namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP = {"RuntimeDefault", "Localhost"}


def breaches(spec: dict[str, Any]) -> list[str]:
    """What of a pod's spec the profile refuses."""
    return [*_of_pod(spec), *_of_containers(spec)]


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes") or ():
        kinds = volume.keys() - {"name"} - _VOLUMES
        if kinds:
            yield f"volume {volume['name']}: {', '.join(kinds)}"


def _of_containers(spec: dict[str, Any]) -> Iterator[str]:
    pod = spec.get("securityContext") or {}
    for container in [*spec["containers"], *(spec.get("initContainers") or ())]:
        name, own = container["name"], container.get("securityContext") or {}
        both = {**pod, **own}
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: may escalate"
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            yield f"{name}: may be root"
        if (both.get("seccompProfile") or {}).get("type") not in _SECCOMP:
            yield f"{name}: no seccomp profile"
        capabilities = own.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            yield f"{name}: keeps capabilities"
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            yield f"{name}: adds capabilities"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f"{name}: host port"

"""Names and volumes: CoreDNS, the tests' CSI driver, and the real sidecars in front of it."""

from __future__ import annotations

from pathlib import Path

from . import control, network, node
from .kubectl import Kubectl, Manifest
from .pki import Authority
from .place import Place, State
from .processes import Part, wait_for

DRIVER = "folders.csi.gpudev.test"
#: Storage classes: a volume at once (the default), and one where the first pod that wants it goes.
AT_ONCE, LATE = "folders", "folders-late"
SNAPSHOT_CLASS = "folders"
#: What a sidecar was refused it tries again after pauses that double up to five minutes; and a
#: snapshot whose making was refused goes only after a try that works. Tests do not wait that long.
_PATIENCE = "--retry-interval-max=4s"
_ADDONS = ("coredns", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller")


def certificates(authority: Authority) -> None:
    """Issues the certificates of these programs; being the machine's, they may do everything."""
    for name in _ADDONS:
        authority.issue(name, user=f"gpudev:{name}", groups=["system:masters"])


def kubeconfigs(place: Place, state: State, authority: Authority) -> None:
    """Writes the kubeconfigs of these programs."""
    for name in _ADDONS:
        authority.kubeconfig(name, control.address(state), place.pki / f"{name}.kubeconfig")


def parts(place: Place, state: State) -> list[Part]:
    """In the order of their start; they need a cluster with `manifests` applied."""
    return [
        _coredns(place, state),
        _driver(place),
        _sidecar(place, state, "csi-provisioner", ["--feature-gates=Topology=true"]),
        _sidecar(place, state, "csi-resizer", []),
        _sidecar(place, state, "csi-snapshotter", []),
        _snapshot_controller(place, state),
    ]


def apply(place: Place, state: State, kubectl: Kubectl) -> None:
    """Puts the CRDs, the classes and the DNS service into the cluster."""
    crds = place.bin / "addons-files"
    # Those of group snapshots too: without them the controller waits for half a minute.
    files = sorted(crds.glob("*snapshot.storage.k8s.io_*.yaml"))
    kubectl("apply", "--server-side", *(f"--filename={file}" for file in files))
    names = ("volumesnapshots", "volumesnapshotclasses", "volumesnapshotcontents")
    for name in names:
        _await_crd(kubectl, f"{name}.snapshot.storage.k8s.io")
    kubectl.apply(*_manifests(), *_dns_service(state))


def _await_crd(kubectl: Kubectl, name: str) -> None:
    """Not by `kubectl wait`, which fails at a CRD so young that its list of conditions is null."""

    def established() -> bool:
        conditions = (kubectl.get("crd", name).get("status") or {}).get("conditions") or []
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    wait_for(f"the CRD {name}", established)


def await_driver(kubectl: Kubectl) -> None:
    """Returns when the kubelet knows the driver: pods with volumes can start from then on."""

    def known() -> bool:
        found = kubectl.get("csinodes", node.NAME)
        return any(one["name"] == DRIVER for one in found["spec"].get("drivers") or [])

    wait_for("the registration of the CSI driver", known)


def driver_socket(place: Place) -> Path:
    """Where the driver listens."""
    return place.kubelet_root / "plugins" / DRIVER / "csi.sock"


def folders(place: Place) -> Path:
    """Where the driver keeps volumes and snapshots."""
    return place.run / "folders"


def _coredns(place: Place, state: State) -> Part:
    health = state.port("coredns-health")
    corefile = place.run / "Corefile"
    corefile.write_text(
        f".:{state.port('coredns')} {{\n"
        f"  bind {network.GATEWAY}\n"
        "  errors\n"
        f"  health 127.0.0.1:{health}\n"
        f"  kubernetes {network.DOMAIN} in-addr.arpa {{\n"
        f"    kubeconfig {place.pki}/coredns.kubeconfig\n"
        "    pods insecure\n"
        "  }\n"
        "  forward . /etc/resolv.conf\n"
        "  cache 5\n"
        "}\n"
    )
    command = [str(place.bin / "coredns"), "-conf", str(corefile)]
    return Part("coredns", command, control.answers(f"http://127.0.0.1:{health}/health"))


def _driver(place: Place) -> Part:
    socket = driver_socket(place)
    socket.parent.mkdir(parents=True, exist_ok=True)
    registry = place.kubelet_root / "plugins_registry"
    registry.mkdir(parents=True, exist_ok=True)
    command = [
        str(place.bin / "driver"),
        *("-root", str(folders(place)), "-socket", str(socket)),
        *("-registration", str(registry / f"{DRIVER}-reg.sock")),
        *("-node", node.NAME, "-zone", node.ZONE),
    ]
    return Part("driver", command, socket.exists)


def _sidecar(place: Place, state: State, name: str, more: list[str]) -> Part:
    port = state.port(name)
    command = [
        str(place.bin / name),
        f"--csi-address={driver_socket(place)}",
        f"--kubeconfig={place.pki}/{name}.kubeconfig",
        f"--http-endpoint=127.0.0.1:{port}",
        _PATIENCE,
        *more,
    ]
    return Part(name, command, control.answers(f"http://127.0.0.1:{port}/metrics"))


def _snapshot_controller(place: Place, state: State) -> Part:
    name = "snapshot-controller"
    port = state.port(name)
    command = [
        str(place.bin / name),
        *(f"--kubeconfig={place.pki}/{name}.kubeconfig", f"--http-endpoint=127.0.0.1:{port}"),
        _PATIENCE,
    ]
    return Part(name, command, control.answers(f"http://127.0.0.1:{port}/metrics"))


def _manifests() -> list[Manifest]:
    def storage_class(name: str, mode: str, default: str) -> Manifest:
        annotation = {"storageclass.kubernetes.io/is-default-class": default}
        return {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name, "annotations": annotation},
            "provisioner": DRIVER,
            "allowVolumeExpansion": True,
            "volumeBindingMode": mode,
        }

    return [
        storage_class(AT_ONCE, "Immediate", "true"),
        storage_class(LATE, "WaitForFirstConsumer", "false"),
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {
                "name": SNAPSHOT_CLASS,
                "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"},
            },
            "driver": DRIVER,
            "deletionPolicy": "Delete",
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": DRIVER},
            "spec": {
                "attachRequired": False,
                "podInfoOnMount": False,
                "fsGroupPolicy": "File",
                "volumeLifecycleModes": ["Persistent"],
            },
        },
    ]


def _dns_service(state: State) -> list[Manifest]:
    """The service that pods ask; this machine is behind it, so its endpoints are made here."""
    name = "kube-dns"
    labels = {"k8s-app": "kube-dns", "kubernetes.io/service-name": name}
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    port = state.port("coredns")
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
            "spec": {
                "clusterIP": network.DNS_ADDRESS,
                "ports": [
                    {"name": word, "protocol": protocol, "port": 53, "targetPort": port}
                    for word, protocol in ports
                ],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [network.GATEWAY]}],
            "ports": [
                {"name": word, "protocol": protocol, "port": port} for word, protocol in ports
            ],
        },
    ]

"""The one real node: containerd, the kubelet and kube-proxy."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from . import control, network
from .pki import Authority
from .place import ClusterError, Place, State
from .processes import Part

NAME = "gpudev-real"
ZONE = "zone-a"
#: The image of pods' sandboxes; busybox, so tests have a shell in it as well.
BUSYBOX = "gpudev.test/busybox:1"
_CNI_PLUGINS = Path("/usr/lib/cni")

_CONTAINERD = """\
version = 2
root = "{run}/containerd"
state = "{run}/containerd-state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{run}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  netns_mounts_under_state_dir = true
  # Without CAP_SYS_RESOURCE nobody may lower the score by which the kernel picks whom it kills for
  # memory, and runc fails at the attempt.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{run}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{run}/runc"
"""


def certificates(authority: Authority) -> None:
    """Issues the node's certificates."""
    hosts = [NAME, network.GATEWAY, "127.0.0.1"]
    authority.issue("kubelet", user=f"system:node:{NAME}", groups=["system:nodes"], hosts=hosts)
    authority.issue("kube-proxy", user="system:kube-proxy")


def kubeconfigs(place: Place, state: State, authority: Authority) -> None:
    """Writes the kubeconfigs of the node's programs."""
    for name in ("kubelet", "kube-proxy"):
        authority.kubeconfig(name, control.address(state), place.pki / f"{name}.kubeconfig")


def containerd(place: Place, state: State) -> Part:
    """The container runtime, with everything of its own below the cluster's folder."""
    config = place.run / "containerd.toml"
    config.write_text(
        _CONTAINERD.format(
            run=place.run, socket=place.containerd_socket, sandbox=BUSYBOX, plugins=_CNI_PLUGINS
        )
    )
    _write_network(place)

    def ready() -> bool:
        return ctr(place, "version", check=False).returncode == 0

    return Part("containerd", [_system("containerd"), f"--config={config}"], ready)


def kubelet(place: Place, state: State) -> Part:
    """The kubelet; it works when its own health is good."""
    health = state.port("kubelet-health")
    config = place.run / "kubelet.json"
    config.write_text(json.dumps(_kubelet_config(place, state, health), indent=1))
    command = [
        str(place.bin / "kubelet"),
        *(f"--config={config}", f"--kubeconfig={place.pki}/kubelet.kubeconfig"),
        *(f"--root-dir={place.kubelet_root}", f"--cert-dir={place.pki}"),
        *(f"--hostname-override={NAME}", f"--node-ip={network.GATEWAY}"),
        f"--node-labels=topology.kubernetes.io/zone={ZONE}",
    ]
    return Part("kubelet", command, control.answers(f"http://127.0.0.1:{health}/healthz"))


def kube_proxy(place: Place, state: State) -> Part:
    """What makes services' addresses work, in pods and on this machine."""
    health, metrics = state.port("kube-proxy-health"), state.port("kube-proxy-metrics")
    config = place.run / "kube-proxy.json"
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(place.pki / "kube-proxy.kubeconfig")},
        "hostnameOverride": NAME,
        "mode": "iptables",
        "clusterCIDR": network.PODS,
        "iptables": {"localhostNodePorts": False},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,  # what the machine has set stays
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "healthzBindAddress": f"127.0.0.1:{health}",
        "metricsBindAddress": f"127.0.0.1:{metrics}",
    }
    config.write_text(json.dumps(settings, indent=1))
    command = [str(place.bin / "kube-proxy"), f"--config={config}"]
    return Part("kube-proxy", command, control.answers(f"http://127.0.0.1:{health}/healthz"))


def ctr(place: Place, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `ctr`, containerd's own client, in the namespace that the kubelet uses."""
    command = [_system("ctr"), f"--address={place.containerd_socket}", "--namespace=k8s.io"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ClusterError(f"ctr {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done


def end_containers(place: Place) -> None:
    """Kills what runs in containers and takes their networks away, while containerd still runs."""
    tasks = ctr(place, "tasks", "list", "--quiet", check=False).stdout.split()
    if tasks:
        ctr(place, "tasks", "delete", "--force", *tasks, check=False)
    containers = ctr(place, "containers", "list", "--quiet", check=False).stdout.split()
    if containers:
        ctr(place, "containers", "delete", *containers, check=False)


def cgroup(place: Place) -> str:
    """The name of the cgroup that has all of the cluster's containers, in every hierarchy."""
    return f"gpudev-cluster-{hashlib.sha256(str(place.run).encode()).hexdigest()[:8]}"


def _kubelet_config(place: Place, state: State, health: int) -> dict[str, object]:
    socket = f"unix://{place.containerd_socket}"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.GATEWAY,
        "port": state.port("kubelet"),
        "healthzPort": health,
        "tlsCertFile": str(place.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(place.pki / "kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(place.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [network.DNS_ADDRESS],
        "clusterDomain": network.DOMAIN,
        "containerRuntimeEndpoint": socket,
        "imageServiceEndpoint": socket,
        "podLogsDir": str(place.run / "pod-logs"),
        "volumePluginDir": str(place.run / "volume-plugins"),
        # Cgroups of version 1, and no groups per pod: this is what a machine in a sandbox allows.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup(place)}",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "nodeStatusUpdateFrequency": "4s",
        "evictionHard": {
            "memory.available": "64Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,  # images are loaded by hand and cannot be pulled again
        "maxPods": 100,
        "registryPullQPS": 0,
    }


def _write_network(place: Place) -> None:
    folder = place.run / "cni"
    folder.mkdir(parents=True, exist_ok=True)
    bridge = {
        "type": "bridge",
        "bridge": network.BRIDGE,
        "isGateway": True,
        "ipMasq": False,  # one rule for all pods, in `network`, leaves nothing behind
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(place.run / "addresses"),
            "ranges": [[{"subnet": network.PODS, "gateway": network.GATEWAY}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    config = {"cniVersion": "0.4.0", "name": "gpudev", "plugins": [bridge]}
    (folder / "10-gpudev.conflist").write_text(json.dumps(config, indent=1))


def _system(program: str) -> str:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
    if found is None:
        raise ClusterError(
            f"{program} is not installed; tools/system-packages lists what is needed."
        )
    return found

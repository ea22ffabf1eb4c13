"""The control plane: etcd, the API server, the controllers and the scheduler."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable

import httpx

from . import network
from .pki import Authority
from .place import Place, State
from .processes import Part

ADMIN = "admin"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # What the control plane asks itself would bury everything else.
        {
            "level": "None",
            "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"],
        },
        {
            "level": "None",
            "users": [
                "system:apiserver",
                "system:kube-controller-manager",
                "system:kube-proxy",
                "system:kube-scheduler",
            ],
        },
        {"level": "Metadata"},
    ],
}


def certificates(place: Place, authority: Authority) -> None:
    """Issues the control plane's certificates."""
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names += [f"kubernetes.default.svc.{network.DOMAIN}", "localhost"]
    addresses = ["127.0.0.1", network.GATEWAY, network.KUBERNETES_ADDRESS]
    authority.issue("apiserver", hosts=[*names, *addresses])
    authority.issue("local", hosts=["127.0.0.1", "localhost"])
    authority.issue("kubelet-client", user="kube-apiserver", groups=["system:masters"])
    authority.issue(ADMIN, groups=["system:masters"])
    for name in ("kube-controller-manager", "kube-scheduler"):
        authority.issue(name, user=f"system:{name}")


def kubeconfigs(place: Place, state: State, authority: Authority) -> None:
    """Writes the kubeconfig of each who asks the API server from here."""
    server = address(state)
    authority.kubeconfig(ADMIN, server, place.kubeconfig)
    for name in ("kube-controller-manager", "kube-scheduler"):
        authority.kubeconfig(name, server, place.pki / f"{name}.kubeconfig")


def address(state: State) -> str:
    """Where the API server answers, from here and from pods."""
    return f"https://{network.GATEWAY}:{state.port('apiserver')}"


def parts(place: Place, state: State) -> list[Part]:
    """In the order of their start."""
    return [
        _etcd(place, state),
        _apiserver(place, state),
        _controllers(place, state),
        _scheduler(place, state),
    ]


def _etcd(place: Place, state: State) -> Part:
    client, metrics = state.port("etcd"), f"http://127.0.0.1:{state.port('etcd-metrics')}"
    peer = f"http://127.0.0.1:{state.port('etcd-peer')}"
    url = f"https://127.0.0.1:{client}"
    command = [
        str(place.bin / "etcd"),
        *("--name=gpudev", f"--data-dir={place.run / 'etcd'}"),
        # Nobody keeps this data: the builds of images beside it would let every write wait for the
        # disk, and what a killed process has written is in the page cache.
        "--unsafe-no-fsync",
        *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
        *(f"--initial-cluster=gpudev={peer}", f"--listen-metrics-urls={metrics}"),
        *(f"--cert-file={place.pki}/local.crt", f"--key-file={place.pki}/local.key"),
        *(f"--trusted-ca-file={place.pki}/ca.crt", "--client-cert-auth"),
        "--log-level=warn",
    ]
    return Part("etcd", command, answers(f"{metrics}/health"))


def _apiserver(place: Place, state: State) -> Part:
    pki = place.pki
    policy = place.run / "audit-policy.json"
    policy.write_text(json.dumps(_AUDIT_POLICY))
    command = [
        str(place.bin / "kube-apiserver"),
        f"--etcd-servers=https://127.0.0.1:{state.port('etcd')}",
        *(f"--etcd-cafile={pki}/ca.crt", f"--etcd-certfile={pki}/{ADMIN}.crt"),
        f"--etcd-keyfile={pki}/{ADMIN}.key",
        *("--bind-address=0.0.0.0", f"--advertise-address={network.GATEWAY}"),
        f"--secure-port={state.port('apiserver')}",
        f"--service-cluster-ip-range={network.SERVICES}",
        *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{network.DOMAIN}",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
        *("--allow-privileged=true", "--profiling=false"),
        *(f"--audit-policy-file={policy}", f"--audit-log-path={place.audit_log}"),
        "--audit-log-maxsize=1000",
    ]
    # The probe carries a certificate: who is nobody may not ask.
    ready = answers(f"{address(state)}/readyz", place, ADMIN)
    return Part("kube-apiserver", command, ready)


def _controllers(place: Place, state: State) -> Part:
    pki, name = place.pki, "kube-controller-manager"
    command = [
        str(place.bin / name),
        *(f"--kubeconfig={pki}/{name}.kubeconfig", "--leader-elect=false"),
        *("--bind-address=127.0.0.1", f"--secure-port={state.port(name)}"),
        *(f"--tls-cert-file={pki}/local.crt", f"--tls-private-key-file={pki}/local.key"),
        f"--service-account-private-key-file={pki}/service-accounts.key",
        *(f"--root-ca-file={pki}/ca.crt", "--use-service-account-credentials=true"),
        *(f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"),
        *(f"--node-monitor-grace-period={place.node_patience}s", "--node-monitor-period=2s"),
        # By default it takes the taint off two or three thousand new nodes in ten minutes.
        *("--kube-api-qps=200", "--kube-api-burst=400"),
        "--profiling=false",
    ]
    return Part(name, command, answers(f"https://127.0.0.1:{state.port(name)}/healthz", place))


def _scheduler(place: Place, state: State) -> Part:
    pki, name = place.pki, "kube-scheduler"
    command = [
        str(place.bin / name),
        *(f"--kubeconfig={pki}/{name}.kubeconfig", "--leader-elect=false"),
        *("--bind-address=127.0.0.1", f"--secure-port={state.port(name)}"),
        *(f"--tls-cert-file={pki}/local.crt", f"--tls-private-key-file={pki}/local.key"),
        "--profiling=false",
    ]
    return Part(name, command, answers(f"https://127.0.0.1:{state.port(name)}/healthz", place))


def answers(url: str, place: Place | None = None, client: str | None = None) -> Callable[[], bool]:
    """A probe: does the address answer that all is well?"""

    def probe() -> bool:
        context = True if place is None else ssl.create_default_context(cafile=place.pki / "ca.crt")
        if client and place and isinstance(context, ssl.SSLContext):
            context.load_cert_chain(place.pki / f"{client}.crt", place.pki / f"{client}.key")
        try:
            return httpx.get(url, verify=context, timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    return probe

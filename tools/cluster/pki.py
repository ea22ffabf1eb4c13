"""Keys and certificates of the cluster: one authority, short lives, all made anew at each start."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = dt.timedelta(days=7)
_EARLIER = dt.timedelta(minutes=5)


class Authority:
    """Signs certificates for programs and people of the cluster; keeps them in one folder."""

    def __init__(self, folder: Path, now: dt.datetime) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder, self._now = folder, now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("gpudev-cluster", [])
        draft = self._draft(self._name, self._key.public_key())
        ca = draft.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write("ca", self._key, ca.sign(self._key, hashes.SHA256()))
        service_accounts = ec.generate_private_key(ec.SECP256R1())
        _secret(self.key("service-accounts"), _pem(service_accounts))
        public = service_accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / "service-accounts.pub").write_bytes(public)

    def key(self, name: str) -> Path:
        """The file with this name's private key."""
        return self._folder / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """The file with this name's certificate."""
        return self._folder / f"{name}.crt"

    def issue(
        self,
        name: str,
        *,
        user: str | None = None,
        groups: list[str] | None = None,
        hosts: list[str] | None = None,
    ) -> None:
        """Writes key and certificate: a client has a user and groups, a server has hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        draft = self._draft(_name(user or name, groups or []), key.public_key())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        draft = draft.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            draft = draft.add_extension(names, critical=False)
        self._write(name, key, draft.sign(self._key, hashes.SHA256()))

    def kubeconfig(self, name: str, server: str, path: Path) -> None:
        """Writes a kubeconfig, with the certificates in it, for a client that was issued before."""
        cluster = {"server": server, "certificate-authority-data": _base64(self.certificate("ca"))}
        user = {
            "client-certificate-data": _base64(self.certificate(name)),
            "client-key-data": _base64(self.key(name)),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "gpudev-cluster",
            "clusters": [{"name": "gpudev-cluster", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [
                {"name": "gpudev-cluster", "context": {"cluster": "gpudev-cluster", "user": name}}
            ],
        }
        _secret(path, json.dumps(config, indent=1).encode())

    def _draft(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _EARLIER)
            .not_valid_after(self._now + _LIFE)
        )

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> None:
        _secret(self.key(name), _pem(key))
        self.certificate(name).write_bytes(cert.public_bytes(serialization.Encoding.PEM))


def _name(user: str, groups: list[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)

"""Public SSH keys as people paste them: read strictly, kept without options and in one spelling.

What is not exactly `type base64 [comment]` on one line is refused: an option like `command="..."`
would be obeyed by an sshd that reads the line, and a second line would be a second key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from .errors import Refusal

#: The types that are accepted. DSA is broken; certificates carry rights of their own.
TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 16384
_COMMENT_MAX = 200


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key as it is kept. `line` is its type and itself; `fingerprint` as `ssh-keygen -l` says."""

    type: str
    line: str
    comment: str
    fingerprint: str


def parse(text: str) -> PublicKey:
    """The key on one line of a `.pub` file.

    Raises:
        ValueError: in words, what is wrong; it repeats nothing of the line.
    """
    line = text.strip(" \t\r\n").replace("\t", " ")
    if "PRIVATE KEY" in line:
        raise ValueError("it is a private key; keep that one, and give what is in the .pub file")
    if not line.isprintable():
        raise ValueError("one key is one line of printable characters")
    kind, _, rest = line.partition(" ")
    body, _, comment = rest.strip(" ").partition(" ")
    if kind not in TYPES:
        raise ValueError(_wrong_type(kind, line))
    try:
        blob = base64.b64decode(body, validate=True)
        canonical = base64.b64encode(blob).decode()
        key = load_ssh_public_key(f"{kind} {canonical}".encode())
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise ValueError(f"it is not a complete key of the type {kind}") from None
    if isinstance(key, RSAPublicKey) and not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        raise ValueError(f"an RSA key needs {RSA_BITS_MIN} bits or more; better, use ssh-ed25519")
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(
        kind, f"{kind} {canonical}", comment.strip()[:_COMMENT_MAX], f"SHA256:{digest}"
    )


def parse_all(lines: Iterable[str], field: str) -> list[PublicKey]:
    """Every key of a request.

    Raises:
        Refusal: `invalid_input`, naming the key by its place.
    """
    found: dict[str, PublicKey] = {}
    for place, line in enumerate(lines):
        try:
            key = parse(line)
        except ValueError as error:
            raise Refusal(
                "invalid_input",
                f"Key {place + 1} cannot be used: {error}.",
                field=f"{field}.{place}",
                accepted=list(TYPES),
            ) from None
        if key.fingerprint in found:
            raise Refusal(
                "invalid_input",
                f"Key {place + 1} stands there already ({key.fingerprint}).",
                field=f"{field}.{place}",
            )
        found[key.fingerprint] = key
    return list(found.values())


def _wrong_type(kind: str, line: str) -> str:
    if kind == "ssh-dss" or "-cert-" in kind:
        return "keys of its type are not accepted"
    if any(word in TYPES for word in line.split(" ")):
        return "options before the key are not accepted; give the key alone"
    return "a key begins with its type, like ssh-ed25519"

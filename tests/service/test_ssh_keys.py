"""Which lines are public SSH keys, and which only look like it."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from gpudev_service.errors import Refusal
from gpudev_service.ssh_keys import TYPES, parse, parse_all

#: Made with ssh-keygen, which also gave the fingerprint.
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHE7456cV84hOsKI4dUVCCKoH+IiQ5BPbuHX+u6c51dl"
FINGERPRINT = "SHA256:jC8/JQP7FrcCBJolR0qMU+J/3NjZgeYLj/xwMxGhALQ"


def public(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "ascii")


def test_a_key_is_kept_without_what_stands_around_it() -> None:
    key = parse(f"  {LINE}\t ada at the office \r\n")
    assert (key.type, key.line, key.comment) == ("ssh-ed25519", LINE, "ada at the office")
    assert key.fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=lambda key: type(key).__name__,
)
def test_every_type_that_is_said_to_be_accepted(key: object) -> None:
    line = public(key)
    assert parse(line).line == line
    assert parse(line).type in TYPES


def test_security_keys() -> None:
    line = (
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIHE7456cV84hOsK"
        "I4dUVCCKoH+IiQ5BPbuHX+u6c51dlAAAABHNzaDo="
    )
    assert parse(f"{line} yubikey").line == line


REFUSED = {
    "options": (f'command="rm -rf /" {LINE}', "options before the key"),
    "an option without a value": (f"no-pty {LINE}", "options before the key"),
    "an option with a tab": (f"restrict\t{LINE}", "options before the key"),
    "a second line": (f"{LINE} x\n{LINE}", "one key is one line"),
    "a carriage return": (f"{LINE} x\rno-pty", "one key is one line"),
    "a null": (f"{LINE}\0", "one key is one line"),
    "a line separator": (f"{LINE} x\u2028{LINE}", "one key is one line"),
    "a comment only": ("# nothing", "begins with its type"),
    "nothing": ("   ", "begins with its type"),
    "an authority": (f"@cert-authority * {LINE}", "options before the key"),
    "a certificate": ("ssh-ed25519-cert-v01@openssh.com AAAA", "not accepted"),
    "a broken key": (LINE[:-8], "not a complete key"),
    "a key that goes on": (LINE + "AAAA", "not a complete key"),
    "no base64": ("ssh-ed25519 $(id)", "not a complete key"),
    "a type without a key": ("ssh-ed25519", "not a complete key"),
    "another type than it says": (LINE.replace("ssh-ed25519", "ssh-rsa"), "not a complete key"),
    "a private key": ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "private key"),
    "a short RSA key": (public(rsa.generate_private_key(65537, 1024)), "2048 bits"),  # noqa: S505
    "a DSA key": ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", "not accepted"),
}


@pytest.mark.parametrize(("line", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        parse(line)
    assert "b3Bl" not in str(raised.value)
    assert "rm -rf" not in str(raised.value)


@given(st.text(max_size=80), st.text(max_size=80))
@example(" ", " ada@laptop")
@example('command="id" ', "")
@example("", '\tfrom="*"')
def test_whatever_is_accepted_is_one_plain_line(before: str, after: str) -> None:
    try:
        key = parse(f"{before}{LINE}{after}")
    except ValueError:
        return
    assert key.line == LINE
    assert key.comment.isprintable()


def test_a_refusal_names_the_key_by_its_place() -> None:
    with pytest.raises(Refusal) as raised:
        parse_all([LINE, "nonsense"], "keys")
    assert (raised.value.code, raised.value.field) == ("invalid_input", "keys.1")
    with pytest.raises(Refusal, match="Key 2 stands there already"):
        parse_all([f"{LINE} a", f"{LINE} b"], "keys")

"""Our part of the SSH configuration, and the one line by which `~/.ssh/config` includes it.

Slower than the rest of the package: only the command imports it.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import hosts

PATTERN = f"{hosts.PREFIX}*"
#: Characters with a meaning to some shell. A name that holds one is not ours: the pattern does not
#: fit it, and `ssh` never puts it into a command. What `*` and `?` would exclude they cannot say.
EXCLUDED = "!\"#$%&'()+,/:;<=>@[\\]^`{|}~ \t"
#: What the way through a proxy costs in addition, this saves at both ends: with a processor's own
#: instructions for AES, a byte takes half the time of ChaCha20, ssh's first choice.
CIPHERS = "^aes128-gcm@openssh.com"
_OPTIONS = (
    ("StrictHostKeyChecking", "yes"),
    ("UpdateHostKeys", "no"),
    ("CheckHostIP", "no"),
    ("GlobalKnownHostsFile", "/dev/null"),
    # The server is shared with whoever was invited; `ssh -A` still asks for it.
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("Ciphers", CIPHERS),
    ("ServerAliveInterval", "30"),
    ("ServerAliveCountMax", "4"),
)
#: Seconds for which the host keys of a reservation are kept, beyond the longest of them.
_KEPT = 366 * 86_400.0
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Setup:
    """What the configuration depends on.

    Args:
        file: the command's own configuration file.
        url: the service's address; with https the proxy command stays and relays.
        login: the account of servers; the local one until another is known.
    """

    file: Path
    url: str
    login: str | None = None

    @property
    def folder(self) -> Path:
        return self.file.parent / "ssh"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    def proxy_command(self, host: str, login: str | None) -> str:
        """The ProxyCommand for `host`, which may be ssh's `%n`."""
        words = [sys.executable, "-I", "-S", str(Path(__file__).parent)]
        words += ["--config", str(self.file)]
        words += ["--login", login] if login else []
        words += ["--fdpass"] if self.fdpass else []
        command = " ".join(shlex.quote(word) for word in words).replace("%", "%%")
        return f"{command} '{host}'"

    @property
    def fdpass(self) -> bool:
        return self.url.startswith("http://")

    def options(self, host: str, login: str | None) -> list[tuple[str, str]]:
        """Everything that `ssh` has to know, as pairs."""
        known = f"{self.folder}/known_hosts.d/".replace("%", "%%") + host
        return [
            ("ProxyCommand", self.proxy_command(host, login)),
            ("ProxyUseFdpass", "yes" if self.fdpass else "no"),
            ("UserKnownHostsFile", f'"{known}"'),
            *_OPTIONS,
        ]


def block(setup: Setup) -> str:
    """Our file: one `Host` for all reservations."""
    login = setup.login or getpass.getuser()
    excluded = " ".join(_excluding(c) for c in EXCLUDED)
    lines = [
        "# Made by `gpu-dev ssh-config`, which writes it anew: changes are lost.",
        f"Host {PATTERN} {excluded}",
        f"    User {login}",
    ]
    lines += [f"    {name} {value}" for name, value in setup.options("%n", login)]
    return "\n".join(lines) + "\n"


def command(setup: Setup, host: str, login: str) -> list[str]:
    """`ssh` to one host without any file of ours; the person's own configuration holds too."""
    hosts.reservation_of(host)
    words = ["ssh", "-o", f"User={login}"]
    for name, value in setup.options(host, None):
        words += ["-o", f"{name}={value}"]
    return [*words, host]


def has_key(environment: Mapping[str, str]) -> bool:
    """Whether `ssh` has anything to log in with here: an agent, a token, or a key file, as the
    person's own configuration says. False only where it is sure."""
    done = subprocess.run(
        ["ssh", "-G", "--", f"{hosts.PREFIX}{'0' * hosts.ID_LENGTH}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return True
    said = [line.partition(" ") for line in done.stdout.splitlines()]
    agent = environment.get("SSH_AUTH_SOCK")
    home = pwd.getpwuid(os.getuid()).pw_dir  # as for `user_config`
    for name, _, value in said:
        if name == "identityfile" and Path(re.sub("^~(?=/)", home, value)).exists():
            return True
        if name == "identityagent" and value not in {"none", "SSH_AUTH_SOCK"}:
            return True
        if name == "pkcs11provider" and value != "none":
            return True
        agent = None if (name, value) == ("identityagent", "none") else agent
    return bool(agent)


def known_login(setup: Setup) -> str | None:
    """The account that our file names now."""
    if not setup.config.is_file():
        return None
    found = re.search(r"^    User (\S+)$", setup.config.read_text("utf-8"), re.MULTILINE)
    return found[1] if found and _LOGIN.fullmatch(found[1]) else None


def user_config() -> Path:
    """The person's own file, where `ssh` looks for it: by the account, whatever HOME says."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh" / "config"


def include_line(setup: Setup) -> str:
    return f'Include "{setup.config}"'


def is_installed(setup: Setup, file: Path) -> bool:
    """Whether `file` includes ours where it holds for every host."""
    for line in _content(file).decode("utf-8", errors="replace").splitlines():
        if line.strip() == include_line(setup):
            return True
        if re.match(r"\s*(host|match)[\s=]", line, re.IGNORECASE):
            return False
    return False


def install(setup: Setup, file: Path) -> bool:
    """Writes our file, and the line into `file`; whether that changed."""
    setup.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(setup.config, block(setup).encode())
    _forget_old(setup.folder / "known_hosts.d")
    if is_installed(setup, file):
        return False
    before, target = _without_line(setup, file), file.resolve()
    if target.exists():
        write(_backup(file), before, _mode(target))
    _change(file, f"{include_line(setup)}\n".encode() + before)
    return True


def _forget_old(folder: Path) -> None:
    """Removes the host keys of reservations that must be over; each connection writes its own."""
    for file in folder.glob(f"{hosts.PREFIX}*"):
        if time.time() - file.stat().st_mtime > _KEPT:
            file.unlink(missing_ok=True)


def remove(setup: Setup, file: Path) -> bool:
    """Takes the line out of `file` and our file away; whether there was anything."""
    there = setup.config.exists()
    setup.config.unlink(missing_ok=True)
    content, rest = _content(file), _without_line(setup, file)
    if rest == content:
        return there
    backup = _backup(file)
    if not rest and not backup.exists():
        file.resolve().unlink()  # it held nothing but our line
        return True
    _change(file, rest)
    if backup.exists() and backup.read_bytes() == rest:
        backup.unlink()  # what it was kept for is there again; else the person has changed it since
    return True


def write(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces a file at once."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(name).chmod(mode)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _change(file: Path, content: bytes) -> None:
    target = file.resolve()  # a link into somebody's collection of settings stays one
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(target, content, _mode(target))


def _mode(target: Path) -> int:
    return target.stat().st_mode & 0o777 if target.exists() else 0o600


def _backup(file: Path) -> Path:
    target = file.resolve()
    return target.with_name(f"{target.name}.before-gpudev")


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _without_line(setup: Setup, file: Path) -> bytes:
    line = include_line(setup).encode()
    kept = [one for one in _content(file).splitlines(keepends=True) if one.strip() != line]
    return b"".join(kept)


def _excluding(character: str) -> str:
    """A negated pattern for names with this character, as one word."""
    if character in '"\\':
        return f'"!*\\{character}*"'
    return f'"!*{character}*"'

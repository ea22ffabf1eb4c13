"""How sshd is started: as the server's own account, for one connection, with keys and nothing else.

The configuration lies in a directory of the process outside of the disk (it has the server's
environment, which no snapshot must have), readable by the account only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import places, who

#: By whom a process of an SSH session was started, in its environment.
MARK = "GPUDEV_SSH_WHO"
#: With which key of theirs.
KEY_MARK = "GPUDEV_SSH_KEY"
#: Seconds between signs of life, so that proxies keep an idle connection; four missed end it.
ALIVE = 30

_SFTP = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)
_ROOT_PRIVATE = Path("/run/sshd")
#: Belongs to the process that the server was started by, or is set by sshd for each session.
_NOT_PASSED = frozenset(
    {
        "TERM",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "JPY_PARENT_PID",
        "NOTIFY_SOCKET",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LINES",
        "COLUMNS",
    }
)
#: Shells that understand the line which changes into the home directory.
_BOURNE = frozenset({"ash", "bash", "dash", "ksh", "mksh", "sh", "zsh"})
_ENTER = (
    'cd && if [ -n "${SSH_ORIGINAL_COMMAND+x}" ]; then eval "$SSH_ORIGINAL_COMMAND"; '
    'else exec "$SHELL" -l; fi'
)


class Unavailable(Exception):  # noqa: N818 - it is said to a person
    """SSH is not possible in this server; the message says why, for a person."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom sessions run as."""

    login: str
    directory: str
    shell: str


def account() -> Account:
    """The account of this process."""
    try:
        found = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise Unavailable(
            f"The server runs as user id {os.geteuid()}, which has no name; OpenSSH needs one."
        ) from None
    return Account(found.pw_name, found.pw_dir, found.pw_shell or "/bin/sh")


def check() -> None:
    """Raises Unavailable where the server lacks what every sshd needs."""
    account()
    program("sshd", "/usr/sbin")
    program("setpriv", "/usr/bin")


def mark(user: str) -> str:
    """The value of `MARK` for a Hub user, whatever characters the name has."""
    return hashlib.sha256(user.encode()).hexdigest()[:24]


def key_mark(user: str, fingerprint: str) -> str:
    """The value of `KEY_MARK` for a key of a Hub user."""
    return mark(f"{user}\0{fingerprint}")


def authorized(people: Mapping[str, Iterable[str]]) -> str:
    """The authorized_keys of Hub users with their public keys."""
    lines = []
    for user, keys in people.items():
        for key in keys:
            kind, body, *_ = key.split()
            own = key_mark(user, who.fingerprint(key))
            marks = f'environment="{MARK}={mark(user)}",environment="{KEY_MARK}={own}"'
            lines.append(f"{marks} {kind} {body}\n")
    return "".join(lines)


class Daemon:
    """What every sshd of this server has in common.

    Args:
        environment: of the server; sessions get the same.
        host_key: path of the private host key.
    """

    def __init__(self, environment: Mapping[str, str], host_key: Path) -> None:
        self.account = account()
        self._sshd = program("sshd", "/usr/sbin")
        self._setpriv = program("setpriv", "/usr/bin")
        self.folder = places.make()
        self._config = self.folder / "sshd_config"
        write(self._config, configuration(environment, host_key, self.account))
        if os.geteuid() == 0:
            # sshd as root wants the empty directory that the system's own service makes.
            _ROOT_PRIVATE.mkdir(mode=0o755, exist_ok=True)

    def command(self, keys: Path) -> list[str]:
        """Serves one connection, on its standard input and output. It ends with this process,
        however that ends."""
        return [
            self._setpriv, "--pdeathsig", "TERM", self._sshd,
            "-i", "-e", "-f", str(self._config), "-o", f"AuthorizedKeysFile={keys}",
        ]  # fmt: skip

    def keys(self, name: str, people: Mapping[str, Iterable[str]]) -> Path:
        """A file of authorized keys."""
        path = self.folder / f"{name}.keys"
        write(path, authorized(people))
        return path

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def configuration(environment: Mapping[str, str], host_key: Path, who: Account) -> str:
    """The sshd_config."""
    lines = [
        f"HostKey {quoted(str(host_key))}",
        "PidFile none",
        "AuthenticationMethods publickey",
        "PubkeyAuthentication yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "HostbasedAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        # The files are ours, in a directory of ours; /tmp above it is what this would refuse.
        "StrictModes no",
        f"PermitUserEnvironment {MARK},{KEY_MARK}",
        "PermitUserRC no",
        "LoginGraceTime 60",
        # Agents offer all their keys; there is nothing to guess here.
        "MaxAuthTries 50",
        "MaxSessions 200",
        "AllowTcpForwarding yes",
        "AllowStreamLocalForwarding yes",
        "AllowAgentForwarding yes",
        "GatewayPorts no",
        "PermitTunnel no",
        "X11Forwarding no",
        "PrintMotd no",
        "PrintLastLog no",
        "UseDNS no",
        "TCPKeepAlive yes",
        f"ClientAliveInterval {ALIVE}",
        "ClientAliveCountMax 4",
        "LogLevel INFO",
    ]
    home = environment.get("HOME", who.directory)
    sftp = next((path for path in _SFTP if Path(path).exists()), None)
    # sshd changes into the account's own directory, which on a single machine is not the disk.
    if Path(home) != Path(who.directory) and Path(who.shell).name in _BOURNE and sftp:
        lines += [f"Subsystem sftp {sftp}", f"ForceCommand {_ENTER}"]
    else:
        lines += [f"Subsystem sftp internal-sftp -d {quoted(home)}"]
    passed = " ".join(quoted(f"{name}={value}") for name, value in _passed(environment))
    lines += [f"SetEnv {passed}"] if passed else []
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """`text` as one word of an sshd_config."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _passed(environment: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name, value in sorted(environment.items()):
        own = name in _NOT_PASSED or name.startswith("SSH_") or name in (MARK, KEY_MARK)
        # A line cannot hold a line's end; bash keeps functions so, which it makes from its files.
        fits = not any(c in "\n\r\f\0" for c in name + value) and name and "=" not in name
        if fits and not own:
            yield name, value


def program(name: str, *elsewhere: str) -> str:
    """The full path of a program; `elsewhere` are directories beside those of PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *elsewhere])
    found = shutil.which(name, path=path)
    if found is None:
        raise Unavailable(f"{name} is not installed in this server.")
    return str(Path(found).absolute())


def write(path: Path, text: str) -> None:
    """A file that only this account reads."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)


def forget(keys: Path) -> None:
    """Removes a file of authorized keys."""
    with contextlib.suppress(FileNotFoundError):
        keys.unlink()

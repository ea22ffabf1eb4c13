"""Programs and files on a reservation's server, by `ssh`.

The host key and the way in are those of `gpu-dev connect`. Files go by rsync where both ends have
it, else as a tar archive through a command; a folder's contents are those of `ignoring.files`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import config, errors, ignoring, models
from .errors import RemoteError
from .ssh import config as ssh_config

#: What ssh itself answers when there is no connection.
NO_CONNECTION = 255


@dataclass(frozen=True, slots=True)
class Remote:
    """One server.

    Args:
        ssh: the command that runs `ssh` up to and with the host.
        environment: of that command.
        progress: whether rsync shows on standard error how far it is.
    """

    ssh: Sequence[str]
    environment: Mapping[str, str]
    progress: bool = False

    def popen(self, command: str, *options: str, **how: Any) -> subprocess.Popen[Any]:
        """Starts a shell's command over there."""
        words = [*self.ssh[:-1], *options, self.ssh[-1], command]
        return subprocess.Popen(words, env=dict(self.environment), **how)

    def run(
        self, command: str, *, stdin: bytes | None = None, timeout: float | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a shell's command over there to its end."""
        return subprocess.run(
            [*self.ssh, command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=dict(self.environment),
            timeout=timeout,
            check=False,
        )

    def must(self, command: str, what: str, *, stdin: bytes | None = None) -> bytes:
        """The output of a command that has to work; RemoteError says that `what` did not."""
        done = self.run(command, stdin=stdin)
        if done.returncode != 0:
            raise RemoteError(f"{what}: {_last_line(done.stderr)}")
        return done.stdout

    def upload(self, local: Path, remote: str) -> int:
        """Copies a file, or a folder's contents, to `remote`; how many files that were.

        A file becomes `remote`, or goes into it where that is a folder or ends with `/`.
        """
        if not local.exists():
            raise RemoteError(f"There is no file {local}.")
        if local.is_dir():
            names = ignoring.files(local)
            self._send(local, names, remote)
            return len(names)
        target = _quoted(remote)
        name = _quoted(f"./{local.name}")
        ask = f"if [ -d {target} ]; then cd {target} && cat > {name}; else cat > {target}; fi"
        if remote.endswith("/"):
            ask = f"mkdir -p {target} && cd {target} && cat > {name}"
        with local.open("rb") as content:
            process = self.popen(
                ask, stdin=content, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            _, said = process.communicate()
        if process.returncode != 0:
            raise RemoteError(f"{local} could not be copied: {_last_line(said)}")
        return 1

    def download(self, remote: str, local: Path) -> int:
        """Copies a file, or a folder's contents, from `remote`; how many files that were."""
        source = _quoted(remote)
        told = self.must(
            f"if [ -d {source} ]; then echo folder; elif [ -e {source} ]; then echo file; "
            f"stat -L -c %a {source} 2>/dev/null; true; fi",
            f"{remote} could not be looked at",
        )
        kind, _, mode = told.strip().partition(b"\n")
        if kind == b"folder":
            listed = self.must(
                f"cd {source} && find . ! -type d -print0", f"{remote} could not be listed"
            )
            names = [os.fsdecode(name)[2:] for name in listed.split(b"\0") if name]
            self.fetch(remote, names, local)
            return len(names)
        if kind != b"file":
            raise RemoteError(f"There is no {remote} on the server.")
        target = local / Path(remote).name if local.is_dir() else local
        with _replacing(target, _permissions(mode)) as out:
            process = self.popen(
                f"cat {source}", stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE
            )
            _, said = process.communicate()
            if process.returncode != 0:
                raise RemoteError(f"{remote} could not be copied: {_last_line(said)}")
        return 1

    def fetch(self, remote: str, names: Sequence[str], local: Path) -> None:
        """Copies files of a folder over there into a folder here."""
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise RemoteError("The server named a file outside of the folder; nothing copied.")
        if not names:
            return
        local.mkdir(parents=True, exist_ok=True)
        listed = b"".join(os.fsencode(name) + b"\0" for name in names)
        if self._has_rsync():
            self._rsync(listed, f"{self.ssh[-1]}:{_path(remote)}/", f"{local}/")
            return
        ask = f"cd {_quoted(remote)} && tar -cf - --null -T -"
        with tempfile.TemporaryFile() as archive, tempfile.TemporaryFile() as asked:
            asked.write(listed)
            asked.seek(0)
            process = self.popen(ask, stdin=asked, stdout=archive, stderr=subprocess.PIPE)
            _, said = process.communicate()
            if process.returncode != 0:
                raise RemoteError(f"{remote} could not be copied: {_last_line(said)}")
            archive.seek(0)
            try:
                _unpack(archive, local)
            except (tarfile.TarError, OSError) as error:
                raise RemoteError(f"{remote} could not be copied: {error}") from error

    def _send(self, local: Path, names: Sequence[str], remote: str) -> None:
        self.must(f"mkdir -p {_quoted(remote)}", f"{remote} could not be made")
        if not names:
            return
        if self._has_rsync():
            listed = b"".join(os.fsencode(name) + b"\0" for name in names)
            self._rsync(listed, f"{local}/", f"{self.ssh[-1]}:{_path(remote)}/")
            return
        process = self.popen(
            f"tar -xf - -C {_quoted(remote)}",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None  # noqa: S101 - it was asked for
        with (
            contextlib.suppress(BrokenPipeError),  # tar over there says why
            tarfile.open(fileobj=process.stdin, mode="w|") as archive,
        ):
            for name in names:
                archive.add(local / name, name, recursive=False)
        _, said = process.communicate()
        if process.wait() != 0:
            raise RemoteError(f"{local} could not be copied: {_last_line(said)}")

    def _has_rsync(self) -> bool:
        if shutil.which("rsync") is None:
            return False
        return self.run("command -v rsync").returncode == 0

    def _rsync(self, listed: bytes, source: str, target: str) -> None:
        command = [
            "rsync",
            "-a",
            "-s",
            "--from0",
            "--files-from=-",
            "-e",
            shlex.join(self.ssh[:-1]),
        ]
        command += ["--info=progress2"] if self.progress else []
        done = subprocess.run(
            [*command, "--", source, target],
            input=listed,
            stdout=2 if self.progress else subprocess.DEVNULL,
            stderr=None if self.progress else subprocess.PIPE,
            env=dict(self.environment),
            check=False,
        )
        if done.returncode != 0:
            raise RemoteError(f"The files could not be copied: {_last_line(done.stderr or b'')}")


@dataclass(frozen=True, slots=True)
class Output:
    """What a program on a server said, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str


def for_access(access: models.SshAccess, url: str, environment: Mapping[str, str]) -> Remote:
    """The server that `access` leads to. Nothing is asked on a terminal.

    Args:
        url: the service's address.
        environment: what the way in is found by, as that person.
    """
    if shutil.which("ssh") is None:
        raise RemoteError("The program ssh is not installed here.")
    setup = ssh_config.Setup(config.path().absolute(), url, access.login)
    command = ssh_config.command(setup, access.host, access.login)
    batch = ["-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes"]
    return Remote([*command[:-1], *batch, command[-1]], {**os.environ, **environment})


def run(
    remote: Remote,
    command: str | Sequence[str],
    stdin: bytes | str | None,
    timeout: float | None,
) -> Output:
    """Runs a program; RemoteError where there is no connection."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = remote.run(quoted_command(command), stdin=given, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise errors.WaitTimeout(f"The program still runs after {error.timeout:g} s.") from error
    if done.returncode == NO_CONNECTION:
        raise RemoteError(f"There is no connection: {_last_line(done.stderr)}")
    said = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return Output(done.returncode, *said)


def quoted_command(command: str | Sequence[str]) -> str:
    """A command as a shell over there takes it; a text is the shell's own language."""
    return command if isinstance(command, str) else shlex.join(command)


def _path(path: str) -> str:
    """A path over there. All that do not begin with `/` are below the home directory, `~/` too;
    none can be taken for an option."""
    below = "." if path in ("", "~", "~/") else path.removeprefix("~/")
    return f"./{below}" if below.startswith("-") else below


def _quoted(path: str) -> str:
    """The same as a word of a shell."""
    return shlex.quote(_path(path))


def _unpack(archive: IO[bytes], folder: Path) -> None:
    """Nothing of it comes to lie outside of the folder, or leads there.

    Raises:
        tarfile.TarError: something would, or is no file, directory or link.
    """
    with tarfile.open(fileobj=archive) as content:
        if hasattr(tarfile, "data_filter"):
            content.extractall(folder, filter="data")
            return
        # Python before 3.11.4 has no filters. One after the other, so that links count.
        inside = os.path.realpath(folder)
        for member in content:
            place = os.path.join(inside, member.name)  # noqa: PTH118 - an absolute name counts
            leads = os.path.join(os.path.dirname(place), member.linkname)  # noqa: PTH118, PTH120
            if member.islnk():
                leads = os.path.join(inside, member.linkname)  # noqa: PTH118
            ends = {os.path.realpath(path) for path in (place, leads)}
            if member.isdev() or os.path.commonpath([inside, *ends]) != inside:
                raise tarfile.ExtractError(f"{member.name!r} does not belong into the folder")
            member.mode &= 0o755
            content.extract(member, inside)


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable()) if lines else "no reason was given"


def _permissions(told: bytes) -> int:
    """The permission bits of a file over there, as `stat` tells them."""
    known = re.fullmatch(rb"[0-7]{1,4}", told.strip())
    return int(told, 8) & 0o777 if known else 0o666  # a server without GNU's stat


class _replacing:  # noqa: N801 - used like a function
    """A file that is there as a whole or not at all, with a mode, less what umask takes from any
    new file."""

    def __init__(self, target: Path, mode: int) -> None:
        self._target, self._mode = target, mode

    def __enter__(self) -> Any:
        name = f".{self._target.name[:100]}-{os.urandom(8).hex()}"
        self._made = self._target.parent / name
        handle = os.open(self._made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
        self._out = os.fdopen(handle, "wb")
        return self._out

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._out.close()
        if kind is None:
            self._made.replace(self._target)
        else:
            self._made.unlink(missing_ok=True)


def total(top: Path, names: Iterable[str]) -> int:
    """How many bytes these files have."""
    return sum((top / name).lstat().st_size for name in names)

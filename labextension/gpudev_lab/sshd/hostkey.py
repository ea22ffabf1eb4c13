"""The host key of a disk.

It lies on the disk, so that a server is the same host in the next lease, and names the disk that it
was made for: in a clone, which is another disk with all files of the first, it is made anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_NAME = "host_ed25519"
_DISK = "host_disk"
_TIMEOUT = 30.0
_OPEN_TO_OTHERS = 0o077


class HostKeyError(Exception):
    """There is no host key and none could be made."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """Where the private key lies, and the public one as `known_hosts` has it."""

    path: Path
    public: str


def ensure(home: Path, disk: str) -> HostKey:
    """The host key of the disk mounted at `home`, made if it is not there.

    Args:
        home: the home directory.
        disk: what tells this disk from every other one.

    Raises:
        HostKeyError: the directory cannot be written, or ssh-keygen is missing or fails.
    """
    folder = home / ".gpudev" / "ssh"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _present(folder, disk)
        if found is None:
            _make(folder, disk)
            found = _present(folder, disk)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostKeyError("the host key of this disk cannot be made") from error
    if found is None:
        raise HostKeyError("the host key of this disk is not as it was made")
    return found


def _present(folder: Path, disk: str) -> HostKey | None:
    key, public, bound = folder / _NAME, folder / f"{_NAME}.pub", folder / _DISK
    for file in (key, public, bound):
        if file.is_symlink() or not file.is_file():
            return None
    if bound.read_text("utf-8").strip() != disk:
        return None
    if key.stat().st_mode & _OPEN_TO_OTHERS or key.stat().st_uid != os.geteuid():
        return None  # somebody else may know it
    kind, _, rest = public.read_text("ascii", errors="replace").strip().partition(" ")
    return HostKey(key, f"{kind} {rest.partition(' ')[0]}")


def _make(folder: Path, disk: str) -> None:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise HostKeyError("OpenSSH (ssh-keygen) is not installed in this server")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
        work = Path(name)
        subprocess.run(
            [program, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(work / _NAME)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
        )
        (work / _DISK).write_text(f"{disk}\n", "utf-8")
        # What it is bound to goes first: a key without its disk is never taken.
        (folder / _DISK).unlink(missing_ok=True)
        for file in (_NAME, f"{_NAME}.pub", _DISK):
            (work / file).chmod(0o600)
            (work / file).replace(folder / file)

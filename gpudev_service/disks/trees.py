"""Walking and removing directory trees that somebody else may be changing.

Every step goes from an open directory to a name in it, and never through a symbolic link, so that
nothing that a user renames or replaces meanwhile leads out of the tree.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from gpudev_service.disks.base import DiskFailure

#: Directories that one walk keeps open; a tree may be deeper than a process may open files.
_OPEN_AT_ONCE = 24

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(name: str | Path, parent: int | None = None) -> int:
    """Open a directory that is not a symbolic link; raises OSError."""
    return os.open(name, _DIRECTORY, dir_fd=parent)


class Descent:
    """A position in a tree: the open directory `fd`, and the way back up to the top."""

    def __init__(self, top: str | Path) -> None:
        self._open: list[int | None] = [open_directory(top)]
        self._identity = [_identity(self.fd)]

    @property
    def fd(self) -> int:
        current = self._open[-1]
        if current is None:
            raise ValueError("the walk is closed")
        return current

    @property
    def depth(self) -> int:
        return len(self._open) - 1

    def descend(self, name: str) -> None:
        """Go into a directory; raises OSError and stays where it is."""
        self._open.append(open_directory(name, self.fd))
        self._identity.append(_identity(self.fd))
        shallow = self.depth - _OPEN_AT_ONCE
        if shallow > 0 and (fd := self._open[shallow]) is not None:
            os.close(fd)
            self._open[shallow] = None

    def ascend(self) -> None:
        """Go back to the parent; raises DiskFailure if the directory has been moved meanwhile."""
        if self._open[-2] is None:
            parent = open_directory("..", self.fd)
            self._open[-2] = parent
            if _identity(parent) != self._identity[-2]:
                raise DiskFailure("directories were moved during the work; try again")
        os.close(self.fd)
        self._open.pop()
        self._identity.pop()

    def close(self) -> None:
        for fd in self._open:
            if fd is not None:
                os.close(fd)
        self._open = [None]


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def entries(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """The names in an open directory with their own status.

    What vanishes meanwhile is left out, and so is what this account may not look at.
    """
    with os.scandir(fd) as found:
        for entry in found:
            try:
                status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, PermissionError):
                continue
            yield entry.name, status


def remove_tree(top: Path, between: Callable[[], None], removed: Callable[[], None]) -> None:
    """Remove a directory with all that is in it, however deep and whatever its modes.

    `between` is called before each name and may raise to stop; `removed` after each directory.
    Another process may be removing the same tree.
    """
    try:
        walk = Descent(top)
    except FileNotFoundError:
        return
    try:
        pending = [_remove_files(walk.fd, between)]
        while True:
            if pending[-1]:
                name = pending[-1][-1]
                if _descend_to_remove(walk, name):
                    pending.append(_remove_files(walk.fd, between))
                else:
                    pending[-1].pop()
                continue
            pending.pop()
            if not pending:
                break
            walk.ascend()
            _remove_directory(pending[-1].pop(), walk.fd)
            removed()
    finally:
        walk.close()
    _remove_directory(str(top), None)
    removed()


def _remove_files(fd: int, between: Callable[[], None]) -> list[str]:
    """Unlink what is no directory; returns the names of the directories."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, mode | stat.S_IRWXU)
    directories = []
    with os.scandir(fd) as found:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in names:
        between()
        if is_directory:
            directories.append(name)
            continue
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            continue
    return directories


def _descend_to_remove(walk: Descent, name: str) -> bool:
    try:
        walk.descend(name)
    except FileNotFoundError:
        return False
    except PermissionError:
        # A directory that its owner may not read. Opening its place only (O_PATH) lets the mode
        # be changed without following a link that somebody put there in the meantime.
        place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=walk.fd)
        try:
            Path(f"/proc/self/fd/{place}").chmod(stat.S_IRWXU)
        finally:
            os.close(place)
        walk.descend(name)
    return True


def _remove_directory(name: str, parent: int | None) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return

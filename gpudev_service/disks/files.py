"""One regular file: copy it, tell whether a snapshot's copy of it is still the same.

How an unchanged file is recognised. Size and modification time are not enough: programs set the
time back (`touch -d`, archives), and a file can be changed without a new size. The kernel's change
time (ctime) cannot be set by a user, so each copy in a snapshot carries, as an extended attribute,
the inode number and ctime of the live file that it was made from: the *mark*. As long as the live
file has both, its content is the copy's. Two gaps are closed:

- Stamps have a granularity: a file changed again within the same tick keeps its ctime. Only a ctime
  older than the clock of the file system before the copy began becomes a mark.
- A store through a memory map stamps the file only when its page was clean. The file system is
  synced after that clock is read and before anything is copied, so every page is clean and the
  next store gives the file a newer ctime than any mark.

Without a mark that fits (a fresh file, a restored disk, a file system without user attributes) the
bytes are compared, which costs time but no space.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable

#: Attribute of a snapshot's copy; never copied to anywhere, so a user's own has no effect.
MARK = "user.gpudev.source"
_MARK_FORMAT = struct.Struct("<Qq")
_FICLONE = 0x40049409
_PIECE = 4 * 1024 * 1024
#: The file system cannot share blocks or copy by itself; the bytes go through this process.
_CANNOT = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADF}
)
#: A name that was a file a moment ago is gone, or a symbolic link or a socket has taken its place.
REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
#: The file has as many names as it may have, or the file system keeps one name per file.
_NO_SECOND_NAME = frozenset({errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Root keeps owners; every other account makes copies that are its own.
IS_ROOT = os.geteuid() == 0

#: Called with the bytes of the file done so far; may raise to stop.
OnPiece = Callable[[int], None]


def open_to_read(name: str, parent: int) -> int | None:
    """Open a regular file; None if the name is something else by now. Raises OSError.

    A FIFO that has taken the file's place does not block.
    """
    fd = os.open(name, _READ, dir_fd=parent)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def kept_mode(status: os.stat_result) -> int:
    """The permission bits of a copy. Set-user-id stays only where the owner stays the same."""
    mode = stat.S_IMODE(status.st_mode)
    if IS_ROOT or status.st_uid == os.geteuid() or stat.S_ISDIR(status.st_mode):
        return mode
    return mode & ~(stat.S_ISUID | stat.S_ISGID)


def attributes_match(live: os.stat_result, copy: os.stat_result) -> bool:
    """Whether a copy could stand for the live file as far as its status tells."""
    return (
        stat.S_ISREG(copy.st_mode)
        and live.st_size == copy.st_size
        and live.st_mtime_ns == copy.st_mtime_ns
        and kept_mode(live) == stat.S_IMODE(copy.st_mode)
        and (not IS_ROOT or (live.st_uid, live.st_gid) == (copy.st_uid, copy.st_gid))
    )


def is_marked(copy: int, live: os.stat_result) -> bool:
    """Whether the open copy is known to hold what the live file holds."""
    try:
        return os.getxattr(copy, MARK) == _mark(live)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def mark(copy: int, live: os.stat_result, clock_ns: int) -> None:
    """Note what the open copy was made from, if that proves anything. `clock_ns`: see above."""
    if live.st_ctime_ns >= clock_ns:
        return
    # No attributes here, none left, or a read-only copy of ours: the bytes get compared instead.
    with contextlib.suppress(OSError):
        os.setxattr(copy, MARK, _mark(live))


def _mark(live: os.stat_result) -> bytes:
    return _MARK_FORMAT.pack(live.st_ino, live.st_ctime_ns)


def is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was left alone between two looks at it."""
    return (before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def is_equal(one: int, other: int, on_piece: OnPiece) -> bool:
    """Whether two open files hold the same bytes and the same extended attributes."""
    if attributes(one) != attributes(other):
        return False
    done = 0
    while True:
        piece = os.pread(one, _PIECE, done)
        if piece != os.pread(other, _PIECE, done):
            return False
        if not piece:
            return True
        done += len(piece)
        on_piece(done)


def copy_content(source: int, destination: int, on_piece: OnPiece) -> None:
    """Fill the empty open `destination`; shares blocks where possible, keeps holes.

    Reads no further than the size at the beginning, so a file that grows comes to an end.
    """
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    else:
        return
    size = os.fstat(source).st_size
    start = 0
    while start < size and (start := _next_data(source, start)) < size:
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        copied = _copy_range(source, destination, start, end, on_piece)
        if copied < end:
            break
        start = end
    os.ftruncate(destination, min(size, os.fstat(source).st_size))


def _next_data(source: int, start: int) -> int:
    try:
        return os.lseek(source, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(source).st_size
        raise


def _copy_range(source: int, destination: int, start: int, end: int, on_piece: OnPiece) -> int:
    """Copy one stretch; returns where it came to an end, which is earlier if the file shrank."""
    while start < end:
        length = min(_PIECE, end - start)
        try:
            done = os.copy_file_range(source, destination, length, start, start)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            done = os.pwrite(destination, os.pread(source, length, start), start)
        if done == 0:
            break
        start += done
        on_piece(start)
    return start


def attributes(fd: int) -> dict[str, bytes]:
    """The extended attributes (access lists among them) of an open file, but for the mark.

    Best effort: a file system that keeps none has none.
    """
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    found = {}
    for name in names:
        if name == MARK:
            continue
        # Removed between the two calls, or of a kind that only the system may read.
        with contextlib.suppress(OSError):
            found[name] = os.getxattr(fd, name)
    return found


def dress(fd: int, status: os.stat_result, extended: dict[str, bytes], mode: int) -> None:
    """Give an open copy the attributes of what it was copied from.

    The order matters: extended attributes need a writable file, a change of the owner takes
    set-user-id away, and the times come last.
    """
    for name, value in extended.items():
        # Best effort: attributes of the system's own kinds need privileges.
        with contextlib.suppress(OSError):
            os.setxattr(fd, name, value)
    if IS_ROOT:
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, mode)
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def link(name: str, source: int, destination: int) -> bool:
    """Give a snapshot's copy its name in another directory too; False if it cannot have one."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=destination, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_SECOND_NAME:
            return False
        raise
    return True

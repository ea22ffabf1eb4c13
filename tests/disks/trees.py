"""Odd directory trees, and a full description of a tree to compare byte by byte."""

# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH115, PTH116, PTH118, PTH123, PTH211

import os
import socket
import stat
from pathlib import Path

#: 2001-09-09, with nanoseconds that a rounding copy would lose.
SOME_TIME_NS = 1_000_000_000_123_456_789

ODD_NAMES = (
    b"plain.txt",
    b"-rf",
    b"--",
    b" leading and trailing ",
    b"new\nline",
    b"tab\tand\x1b[31mescape",
    b"back\\slash",
    b"\\xff",
    b"\xff\xfe not UTF-8",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b"%2e%2e",
    b"...",
    b"'quotes\"$(id)`id`",
    b"n" * 255,
)


def make_odd_tree(top: Path) -> None:
    """Fill a directory with everything that a copy has to keep."""
    for number, name in enumerate(ODD_NAMES):
        write(top, name, b"content %d" % number)
    (top / "empty").mkdir()
    (top / "nothing.bin").touch()
    (top / "big.bin").write_bytes(os.urandom(5 * 1024 * 1024 + 17))
    nested = top / "a" / "b" / "c"
    nested.mkdir(parents=True)
    for name in ODD_NAMES:
        write(nested, name, name)
    for mode in (0o400, 0o444, 0o600, 0o644, 0o755, 0o4755, 0o666):
        path = top / f"mode-{mode:o}"
        path.write_text(oct(mode))
        path.chmod(mode)
    (top / "link-to-file").symlink_to("plain.txt")
    (top / "link-dangling").symlink_to("nowhere/at/all")
    (top / "link-outside").symlink_to("/etc/passwd")
    (top / "link-to-directory").symlink_to("a")
    os.symlink(b"\xff\xfe", bytes(top / "link-odd"))
    with (top / "sparse.bin").open("wb") as sparse:
        sparse.seek(64 * 1024 * 1024)
        sparse.write(b"end")
        sparse.truncate(96 * 1024 * 1024)
    for path in (top / "link-outside", top / "plain.txt", nested, top / "empty", top):
        os.utime(path, ns=(SOME_TIME_NS, SOME_TIME_NS), follow_symlinks=False)
    (top / "a" / "b").chmod(0o750)
    (top / "empty").chmod(0o500)
    os.utime(top / "a", ns=(5, 5))


def write(directory: Path, name: bytes, content: bytes) -> None:
    """Write a file whose name is any bytes."""
    fd = os.open(os.path.join(bytes(directory), name), os.O_WRONLY | os.O_CREAT, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def make_special_files(top: Path) -> int:
    """Make what a copy leaves out; returns how many there are."""
    os.mkfifo(top / "fifo")
    here = Path.cwd()
    os.chdir(top)  # the path of a socket has room for 108 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)
    return 2


def describe(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Every name below (and `top` itself as b""): type, mode, time, content, attributes."""
    found = {b"": _status(top.stat())}
    for directory, directories, names in os.walk(bytes(top)):
        for name in [*directories, *names]:
            path = directory + b"/" + name
            found[path[len(bytes(top)) + 1 :]] = _describe_one(path)
    return found


def _describe_one(path: bytes) -> tuple[object, ...]:
    status = os.stat(path, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return *_status(status), os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return *_status(status), status.st_size, file.read()
    return _status(status)


def _status(status: os.stat_result) -> tuple[object, ...]:
    return stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_mtime_ns


def allocated(*tops: Path) -> int:
    """Bytes that the regular files of several trees take together, each inode counted once."""
    blocks = {}
    for top in tops:
        for directory, _, names in os.walk(bytes(top)):
            for name in names:
                status = os.stat(directory + b"/" + name, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    blocks[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())

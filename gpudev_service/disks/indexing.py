"""Lists all files of a mounted snapshot, for the service to read from the log of the pod.

Runs in a short-lived pod: `python -m gpudev_service.disks.indexing DIRECTORY MOST_BYTES`. It reads
names and sizes, never what is in a file, follows no link, and writes text lines:

    gpudev-index 1
    p                     (a page begins: its first key, then its data, in pieces, in base 85)
    +...                  (a piece)
    end {...}             (the summary, and how many pages there are)

A log without the last line is not whole.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpudev_service.disks import names
from gpudev_service.disks.indexes import (
    FIRST,
    FURTHER,
    PAGE_BYTES,
    UNREADABLE,
    Page,
    Raw,
    Record,
    Summary,
    pack,
    unpack,
)
from gpudev_service.disks.trees import entries, open_directory

HEADER = "gpudev-index 1"
#: Characters of a line: container runtimes cut what is longer than 16 KiB.
_LINE = 8 * 1024
#: About how many bytes an entry takes on a page beside its name.
_OVERHEAD = 40
_BLOCK = 512
#: More directories than these are not walked: their paths are held in memory.
MOST_DIRECTORIES = 500_000

_MARKS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}


@dataclass(slots=True)
class _Meter:
    size: int = 0
    blocks: int = 0
    files: int = 0
    unreadable: int = 0
    complete: bool = True
    seen: set[tuple[int, int]] = field(default_factory=set)

    def add(self, status: os.stat_result) -> None:
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            if (status.st_dev, status.st_ino) in self.seen:
                return
            self.seen.add((status.st_dev, status.st_ino))
        self.blocks += status.st_blocks
        if stat.S_ISREG(status.st_mode):
            self.size += status.st_size
            self.files += 1

    def summary(self) -> Summary:
        return Summary(self.size, self.blocks * _BLOCK, self.files, self.unreadable, self.complete)


def index(top: Path, most_bytes: int) -> tuple[list[Page], Summary]:
    """The index of a tree; its pages take no more than `most_bytes`, what does not fit is left out
    (deepest and last first), but counted."""
    meter = _Meter()
    status = top.stat()
    meter.blocks += status.st_blocks
    device = status.st_dev
    pages: list[Page] = []
    held: list[Record] = []
    pending = size = 0
    for record in _records(top, device, meter):
        held.append(record)
        pending += sum(len(e[0]) + _OVERHEAD for e in record.entries) + len(record.path) + _OVERHEAD
        if pending >= PAGE_BYTES:
            page = pack(held)
            held, pending = [], 0
            size += len(page.data) + len(page.first)
            if size > most_bytes:
                meter.complete = False
                break
            pages.append(page)
    if held:
        pages.append(pack(held))
    return pages, meter.summary()


def _records(top: Path, device: int, meter: _Meter) -> Iterator[Record]:
    """All directories in the order of their keys, in parts of at most a page."""
    ways = _directories(top, device, meter)
    for way in sorted(ways, key=lambda parts: b"/".join(map(os.fsencode, parts)) + b"\0"):
        path = "/".join(map(names.shown, way))
        try:
            fd = _open(top, way)
        except PermissionError:
            meter.unreadable += 1
            yield Record(path, UNREADABLE, [])
            continue
        try:
            listed = [_raw(name, status) for name, status in entries(fd)]
        finally:
            os.close(fd)
        listed.sort(key=lambda each: os.fsencode(names.stored(each[0])))
        yield from _parts(path, listed)


def _raw(name: str, status: os.stat_result) -> Raw:
    mark = _MARKS.get(stat.S_IFMT(status.st_mode), "o")
    return names.shown(name), mark, status.st_size, status.st_mtime_ns


def _parts(path: str, listed: Sequence[Raw]) -> Iterator[Record]:
    part: list[Raw] = []
    size, kind = 0, FIRST
    for entry in listed:
        part.append(entry)
        size += len(entry[0]) + _OVERHEAD
        if size >= PAGE_BYTES:
            yield Record(path, kind, part)
            part, size, kind = [], 0, FURTHER
    if part or kind == FIRST:
        yield Record(path, kind, part)


def _directories(top: Path, device: int, meter: _Meter) -> list[tuple[str, ...]]:
    """The way to every directory, the top's being empty; measures what is on the way. Breadth
    first, so that of too many the deepest are left out."""
    found: list[tuple[str, ...]] = [()]
    for way in found:  # it grows meanwhile
        try:
            fd = _open(top, way)
        except PermissionError:
            continue  # counted when it is listed
        try:
            for name, status in entries(fd):
                if status.st_dev != device:
                    continue
                meter.add(status)
                if stat.S_ISDIR(status.st_mode):
                    if len(found) < MOST_DIRECTORIES:
                        found.append((*way, name))
                    else:
                        meter.complete = False
        finally:
            os.close(fd)
    return found


def _open(top: Path, way: Sequence[str]) -> int:
    fd = open_directory(top)
    for name in way:
        try:
            deeper = open_directory(name, fd)
        finally:
            os.close(fd)
        fd = deeper
    return fd


# --- as text ----------------------------------------------------------------------------------


def written(pages: Sequence[Page], summary: Summary) -> Iterator[str]:
    """The lines of an index."""
    yield HEADER
    for page in pages:
        yield "p " + base64.b85encode(page.first).decode()
        text = base64.b85encode(page.data).decode()
        for at in range(0, len(text), _LINE):
            yield "+" + text[at : at + _LINE]
    yield "end " + json.dumps(summary.to_json() | {"pages": len(pages)})


def read(text: str) -> tuple[list[Page], Summary]:
    """An index from its lines; raises ValueError where they are not whole."""
    lines = text.splitlines()
    if not lines or lines[0] != HEADER or not lines[-1].startswith("end "):
        raise ValueError("the index is not whole")
    firsts: list[bytes] = []
    pieces: list[list[str]] = []
    for line in lines[1:-1]:
        if line.startswith("p "):
            firsts.append(base64.b85decode(line[2:]))
            pieces.append([])
        elif line.startswith("+") and pieces:
            pieces[-1].append(line[1:])
        else:
            raise ValueError("the index has a line that is none of its own")
    said = json.loads(lines[-1].removeprefix("end "))
    if said.pop("pages") != len(firsts):
        raise ValueError("the index is not whole")
    pages = [
        Page(first, base64.b85decode("".join(piece)))
        for first, piece in zip(firsts, pieces, strict=True)
    ]
    for page in pages:
        unpack(page.data)
    return pages, Summary(**said)


def main(arguments: Sequence[str]) -> None:
    directory, most = arguments
    for line in written(*index(Path(directory), int(most))):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""An index of all files of a snapshot: made once, then any directory is listed without the bytes.

An index is a sequence of pages, compressed, in the order of their keys. A directory's key is its
path (bytes) and a NUL, an entry's key the key of its directory and its name; so the entries of a
directory stand together and in the order in which they are listed. The first record of a directory
is there even where it is empty. Large directories go over several pages.

An index has a bounded size. Where a disk has more files than fit, the index ends early (`complete`
is false), and what is beyond its end cannot be listed without restoring or cloning the snapshot.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from gpudev_service.disks import names
from gpudev_service.disks.base import (
    ContentsUnknown,
    DiskError,
    Entry,
    EntryKind,
    InvalidCursor,
    InvalidPath,
    PathNotFound,
    PathOutsideDisk,
)
from gpudev_service.disks.listing import moment

#: As it stands on a page: name as `names.shown` writes it, kind, size, time in nanoseconds.
Raw = tuple[str, str, int, int]

KINDS: dict[str, EntryKind] = {"f": "file", "d": "directory", "l": "symlink", "o": "other"}

#: How a directory's record begins: its first part, a further part, or one that cannot be read.
FIRST, FURTHER, UNREADABLE = 0, 1, 2

#: Bytes of a page before it is compressed; far more than a page of ours means damage.
PAGE_BYTES = 128 * 1024
_MOST_PAGE_BYTES = 64 * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Summary:
    """What an index adds up to. A file with several names counts once."""

    size_bytes: int
    allocated_bytes: int
    files: int
    unreadable: int
    complete: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of an index: `data` is compressed, `first` the key at which it begins."""

    first: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Indexed:
    """Which snapshot an index is of, and what it says in sum."""

    snapshot_id: str
    taken_at: datetime
    summary: Summary


class Listings(Protocol):
    """Where indexes are kept."""

    async def put(
        self, disk_id: str, indexed: Indexed, sequence: int, pages: Sequence[Page]
    ) -> None:
        """Keeps an index in place of the one that the snapshot may have."""

    async def find(self, disk_id: str, snapshot_id: str | None) -> Indexed | None:
        """The index of a snapshot, or of the disk's newest one that has an index."""

    async def page(self, snapshot_id: str, key: bytes) -> tuple[int, bytes] | None:
        """The number and data of the last page that begins at or before `key`."""

    async def numbered(self, snapshot_id: str, number: int) -> bytes | None:
        """The data of the page of that number."""

    async def remove(self, disk_id: str, snapshot_id: str | None = None) -> None:
        """Forgets a snapshot's index, or all of a disk."""


def directory_key(parts: Sequence[str]) -> bytes:
    return b"/".join(os.fsencode(part) for part in parts) + b"\0"


@dataclass(frozen=True, slots=True)
class Record:
    """A directory, or a part of it, on a page."""

    path: str
    kind: int
    entries: list[Raw]

    @property
    def key(self) -> bytes:
        return directory_key([names.stored(part) for part in self.path.split("/") if part])


def pack(records: Sequence[Record]) -> Page:
    """A page of records, which are in order and at least one."""
    first = records[0]
    begins = first.key
    if first.kind == FURTHER:
        begins += os.fsencode(names.stored(first.entries[0][0]))
    text = json.dumps([[r.path, r.kind, r.entries] for r in records], separators=(",", ":"))
    return Page(begins, zlib.compress(text.encode(), 9))


def unpack(data: bytes) -> list[Record]:
    """The records of a page; raises ValueError for what is none."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data, _MOST_PAGE_BYTES)
    except zlib.error as error:
        raise ValueError("the page is damaged") from error
    if not reader.eof:
        raise ValueError("the page is damaged, or too large")
    return [
        Record(path, kind, [(name, mark, size, ns) for name, mark, size, ns in entries])
        for path, kind, entries in json.loads(text)
    ]


async def page_of(
    listings: Listings, indexed: Indexed, path: str, limit: int, cursor: str | None
) -> tuple[list[Entry], str | None]:
    """The next `limit` entries of a directory in the order of their bytes.

    Raises the path errors, InvalidCursor, and ContentsUnknown beyond the end of the index.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    parts = names.parts(path)
    key = directory_key(parts)
    after = b"" if cursor is None else _position(cursor)
    found = await _entries(listings, indexed, key, after, limit + 1)
    if found is None:
        raise await _why_not(listings, indexed, parts)
    raws, cut = found
    shown = [_entry(each) for each in raws[:limit]]
    if cut and len(raws) <= limit and not indexed.summary.complete:
        if not shown:
            raise _beyond()
        return shown, shown[-1].name
    return shown, shown[-1].name if len(raws) > limit else None


def _position(cursor: str) -> bytes:
    try:
        return os.fsencode(names.stored(cursor))
    except InvalidPath:
        raise InvalidCursor("the cursor is not one of this listing") from None


async def _entries(
    listings: Listings, indexed: Indexed, key: bytes, after: bytes, most: int
) -> tuple[list[Raw], bool] | None:
    """Up to `most` entries of a directory behind `after`, and whether the index ended in it; None
    where it is not in the index."""
    found: list[Raw] = []
    is_there = False
    page = await listings.page(indexed.snapshot_id, key + after)
    while page is not None:
        number, data = page
        for record in unpack(data):
            own = record.key
            if own > key:
                return (found[:most], False) if is_there else None
            if own == key:
                if record.kind == UNREADABLE:
                    raise PathNotFound("the directory cannot be read")
                is_there = True
                found += [e for e in record.entries if _stored(e) > after]
        if len(found) >= most:
            return found[:most], False
        following = await listings.numbered(indexed.snapshot_id, number + 1)
        page = None if following is None else (number + 1, following)
    return (found[:most], True) if is_there else None


async def _why_not(listings: Listings, indexed: Indexed, parts: list[str]) -> DiskError:
    """Why a directory is not in the index: the first name on the way that is no directory."""
    for depth, name in enumerate(parts):
        mark = await _mark(listings, indexed, parts[:depth], name)
        if mark == "l":
            return PathOutsideDisk("symbolic links are not followed")
        if mark is None and indexed.summary.complete:
            return PathNotFound("there is no such directory")
        if mark is None:
            return _beyond()
        if mark != "d":
            return PathNotFound("that is not a directory")
    return PathNotFound("there is no such directory") if indexed.summary.complete else _beyond()


async def _mark(listings: Listings, indexed: Indexed, parent: list[str], name: str) -> str | None:
    """What a name in a directory is, as far as the index has it."""
    key = directory_key(parent)
    page = await listings.page(indexed.snapshot_id, key + os.fsencode(name))
    if page is None:
        return None
    mine = [record for record in unpack(page[1]) if record.key == key]
    if any(record.kind == UNREADABLE for record in mine):
        raise PathNotFound("the directory cannot be read")
    entries = [entry for record in mine for entry in record.entries]
    return next((e[1] for e in entries if names.stored(e[0]) == name), None)


def _stored(raw: Raw) -> bytes:
    return os.fsencode(names.stored(raw[0]))


def _beyond() -> ContentsUnknown:
    return ContentsUnknown(
        "The disk has more files than can be listed without a server, and these are beyond. "
        "Clone the snapshot to look into it."
    )


def _entry(raw: Raw) -> Entry:
    name, mark, size, nanoseconds = raw
    return Entry(name=name, kind=KINDS[mark], size_bytes=size, modified_at=moment(nanoseconds))

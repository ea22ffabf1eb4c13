"""How ids and file names are written outside the file system.

A file name is bytes; JSON and people want text. `shown` decodes UTF-8 and writes each byte that is
not part of it as `\\xhh`, and a backslash as two, so that different names never look the same and
`stored` finds the way back. Ordinary names stay as they are.
"""

import os
import re

from gpudev_service.disks.base import InvalidDiskId, InvalidPath, PathOutsideDisk

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ESCAPE = re.compile(r"\\(?:(\\)|x([89a-f][0-9a-f])|)")
#: Where Python's surrogateescape puts the bytes 0x80 to 0xff.
_SURROGATES = 0xDC00


def checked_id(value: str) -> str:
    """The id itself, if it may become the name of a directory; raises InvalidDiskId."""
    if _ID.fullmatch(value) is None:
        raise InvalidDiskId(
            "an id has 1 to 63 lower-case letters, digits, `-` and `_`, and begins with a letter "
            "or digit"
        )
    return value


def shown(name: str) -> str:
    """A name from the file system (with surrogate escapes) in the form that goes into JSON."""
    escaped = name.replace("\\", "\\\\")
    return re.sub(r"[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - _SURROGATES:02x}", escaped)


def stored(text: str) -> str:
    """The reverse of `shown`; raises InvalidPath for what `shown` never writes."""

    def unescape(match: re.Match[str]) -> str:
        if match[1]:
            return "\\"
        if match[2]:
            return chr(_SURROGATES + int(match[2], 16))
        raise InvalidPath("a backslash in a path is written as two")

    name = _ESCAPE.sub(unescape, text)
    try:
        # Escapes that together are valid UTF-8, or surrogates in the text itself, are no names.
        written = os.fsencode(name)
    except UnicodeEncodeError:
        raise InvalidPath("the path is not valid text") from None
    if shown(os.fsdecode(written)) != text:
        raise InvalidPath("the path is not written as a listing writes it")
    return name


def parts(path: str) -> list[str]:
    """The names on the way to a directory inside a disk, top first.

    Raises InvalidPath, and PathOutsideDisk for absolute paths and `..`, wherever they would lead.
    """
    if "\0" in path:
        raise InvalidPath("a path has no NUL bytes")
    if path.startswith("/"):
        raise PathOutsideDisk("the path must be relative to the disk")
    names = [stored(part) for part in path.split("/") if part not in ("", ".")]
    if ".." in names:
        raise PathOutsideDisk("the path must not contain `..`")
    return names

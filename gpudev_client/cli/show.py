"""How answers look: tables that become records where they do not fit, wrapped text, JSON.

Pure up to `out`, `note` and `emit_json`, which write. Nothing is ever cut: on a terminal lines are
wrapped, in a pipe they are as long as they are. Text that others chose (names, reasons, file names)
cannot steer the terminal: control characters are shown escaped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

_GAP = "  "
_INDENT = "  "


def clean(text: str) -> str:
    """`text` with everything unprintable escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, *, right: str = ""
) -> str:
    """Rows in columns if they fit into `width`, else one record per row.

    `right` names the columns (by title) that are aligned to the right, separated by spaces.
    Columns that are empty in all rows are left out.
    """
    used = [i for i, _ in enumerate(titles) if any(row[i] for row in rows)]
    heads = [titles[i] for i in used]
    grid = [[clean(row[i]) for i in used] for row in rows]
    widths = [max(cells(head), *(cells(row[i]) for row in grid)) for i, head in enumerate(heads)]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        return _records(heads, grid, width)
    to_right = set(right.split())
    lines = []
    for row in [heads, *grid]:
        padded = [_pad(value, widths[i], heads[i] in to_right) for i, value in enumerate(row)]
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def details(pairs: Iterable[tuple[str, str | None]], width: int | None) -> str:
    """Labels with values below each other; what is None or empty is left out."""
    shown = [(label, clean(value)) for label, value in pairs if value]
    space = max((len(label) for label, _ in shown), default=0) + len(_GAP)
    lines: list[str] = []
    for label, value in shown:
        parts = _fold(value, None if width is None else width - space)
        lines.append(f"{label:<{space}}{parts[0]}")
        lines += [" " * space + part for part in parts[1:]]
    return "\n".join(lines)


def wrapped(text: str, width: int | None, first: int = 0) -> str:
    """`text` in lines of at most `width` columns, broken between words; `first` columns of the
    first line are taken already. Longer words are kept whole only where there is no width."""
    if width is None:
        return text
    lines = []
    for index, paragraph in enumerate(text.split("\n")):
        lines += _fold(paragraph, width, first if index == 0 else 0)
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def emit_json(value: Any, *, one_line: bool = False) -> None:
    """A JSON document on standard output; models as objects, times as ISO 8601 in UTC."""
    text = json.dumps(value, default=_plain, indent=None if one_line else 2, ensure_ascii=False)
    click.echo(_encodable(text))


def out(text: str) -> None:
    """An answer, on standard output."""
    click.echo(_encodable(text))


def note(text: str, width: int | None = None) -> None:
    """A remark that is not the answer, on standard error."""
    click.echo(_encodable(wrapped(text, width), err=True), err=True)


def _encodable(text: str, *, err: bool = False) -> str:
    # A terminal of another encoding gets escapes instead of a crash.
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _pad(text: str, width: int, to_right: bool) -> str:
    space = " " * (width - cells(text))
    return space + text if to_right else text + space


def _records(heads: Sequence[str], grid: Sequence[Sequence[str]], width: int) -> str:
    """The first column is each record's headline."""
    blocks = []
    for row in grid:
        lines = _fold(row[0] or "-", width)
        rest = [(head.lower(), value) for head, value in zip(heads[1:], row[1:], strict=True)]
        body = details(rest, max(width - len(_INDENT), 10))
        lines += [_INDENT + line for line in body.split("\n") if line]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _fold(text: str, width: int | None, first: int = 0) -> list[str]:
    if width is None or cells(text) + first <= width:
        return [text]
    width = max(width, 8)
    lines: list[str] = []
    line, room = "", width - first
    for word in text.split(" "):
        candidate = f"{line} {word}" if line else word
        if cells(candidate) <= room:
            line = candidate
            continue
        if line or (first and not lines):
            lines.append(line)
            room = width
        line = word
        # An address is kept whole: it has to be copied, and terminals wrap it by themselves.
        while cells(line) > room and "://" not in line:
            head = _head(line, room)
            lines.append(head)
            line = line[len(head) :]
    lines.append(line)
    return lines


def _head(text: str, room: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += cells(character)
        if taken > room:
            return text[: max(index, 1)]
    return text

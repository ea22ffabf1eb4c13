"""The documentation as the tests read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tiers import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
#: Code in a sentence may go on in the next line, not in the next paragraph.
_INLINE = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, with the line on which its text begins."""

    page: Path
    line: int
    language: str
    body: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks of all pages in these languages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("body")) + 1
                found.append(Block(page, line, match["language"], match["body"]))
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def inline(page: Path) -> list[str]:
    """What stands in backticks in the text of a page."""
    return [" ".join(code.split()) for code in _INLINE.findall(prose(page))]


def shell() -> Iterator[tuple[str, str]]:
    """(where, line) of each line that a reader is to type."""
    for block in blocks("console"):
        for offset, line in enumerate(block.body.splitlines()):
            if line.startswith("$ "):
                yield f"{name(block.page)}:{block.line + offset}", line.removeprefix("$ ")
    for block in blocks("sh"):
        text = block.body.replace("\\\n", " ")
        yield from ((str(block), line) for line in text.splitlines() if line.strip())


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its title row."""
    section = re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading + "\n"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]

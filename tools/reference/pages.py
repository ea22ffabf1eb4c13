"""Which pages are made from the code, and which have sections in them that are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from . import api, cli, configuration, sections, values

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

#: Whole pages.
PAGES: Mapping[str, Callable[[], str]] = {
    "users/cli.md": cli.page,
    "users/api.md": api.page,
    "operators/configuration.md": configuration.page,
    "operators/helm-values.md": values.page,
}
#: Pages with sections between `<!-- generated: NAME -->` and `<!-- end -->`.
WITH_SECTIONS = ("operators/guide.md", "operators/simulate.md", "contributing/architecture.md")

_SECTION = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def rendered() -> dict[Path, str]:
    """Each page by its path, as it should be.

    Raises:
        KeyError: a page names a section that nobody makes.
    """
    pages = {DOCS / name: page() for name, page in PAGES.items()}
    for name in WITH_SECTIONS:
        path = DOCS / name
        pages[path] = _SECTION.sub(_filled, path.read_text())
    return pages


def _filled(found: re.Match[str]) -> str:
    body = sections.SECTIONS[found["name"]]().strip("\n")
    return f"{found['begin']}\n{body}\n\n{found['end']}"

"""Every link inside the project leads to something that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, name, prose
from tests.tiers import ROOT
from tools.reference.markdown import anchor

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OUTSIDE = re.compile(r"https?://|mailto:")
#: A picture is part of a page that people open on a telephone, too.
IMAGE_MAX = 200_000


def targets(page: Path) -> list[str]:
    return [target for target in _LINK.findall(prose(page)) if not _OUTSIDE.match(target)]


def anchors(page: Path) -> set[str]:
    return {anchor(text) for text in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in targets(page):
        file, _, fragment = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or not there.is_relative_to(ROOT):
            wrong.append(target)
        elif fragment and fragment not in anchors(there):
            wrong.append(f"{target}: no such heading")
    assert not wrong


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        linked = [(page.parent / target.partition("#")[0]).resolve() for target in targets(page)]
        waiting += [there for there in linked if there.suffix == ".md" and there.is_file()]
    assert not [name(page) for page in PAGES if page not in reached]


def test_pictures_are_small_and_used() -> None:
    pictures = set((ROOT / "docs" / "images").iterdir())
    used = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in targets(page)
        if target.endswith((".png", ".svg"))
    }
    assert pictures == used
    kinds = {".png": b"\x89PNG", ".svg": b"<svg "}
    assert all(picture.read_bytes().startswith(kinds[picture.suffix]) for picture in pictures)
    assert not [name(picture) for picture in pictures if picture.stat().st_size > IMAGE_MAX]

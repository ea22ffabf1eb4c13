"""The planted holes are up to date, and some of them are planted; all of them by `make r11`."""

from __future__ import annotations

import os
import random

import pytest

from tests.tiers import ROOT

from .catalogue import CLASSES, Hole, holes
from .planting import Copy, judge

QUICK = [hole for hole in holes() if hole.quick]
#: Planted in the everyday suite; `HOLES_SEED` chooses others.
CHOSEN = random.Random(os.environ.get("HOLES_SEED", "1")).sample(QUICK, 4)


def test_every_class_has_holes() -> None:
    assert {hole.kind for hole in holes()} == CLASSES
    assert len({str(hole) for hole in holes()}) == len(holes())


@pytest.mark.parametrize("hole", holes(), ids=str)
def test_a_hole_fits_the_code_and_its_tests_are_there(hole: Hole) -> None:
    text = (ROOT / hole.file).read_text("utf-8")
    assert hole.planted(text) != text
    assert hole.lacking() == []


def test_what_is_out_of_date_is_said() -> None:
    hole = Hole("xss", "old", "", "README.md", "no such text in it", "", ())
    with pytest.raises(LookupError, match="xss/old is out of date"):
        hole.planted("something else")


@pytest.mark.slow
def test_some_holes_are_noticed() -> None:
    with Copy() as copy:
        before = copy.run(sorted({test for hole in CHOSEN for test in hole.tests}))
        assert [one for one in before if one.how not in {"passed", "skipped"}] == []
        verdicts = [judge(hole, copy) for hole in CHOSEN]
    assert [wrong for verdict in verdicts for wrong in verdict.wrong] == []


def test_a_hole_that_nobody_notices_is_found() -> None:
    hole = Hole(
        "xss", "harmless", "", "gpudev_service/api/ratelimit.py", "Token buckets", "Buckets",
        ("tests/api/test_ratelimit.py::test_a_burst_and_then_a_rate",),
    )  # fmt: skip
    with Copy() as copy:
        verdict = judge(hole, copy)
    assert not verdict.caught
    assert "does not notice it" in verdict.wrong[0]

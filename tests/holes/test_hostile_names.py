"""Nothing that is made of a name hurts anybody, whatever the name; a million by `make r11`."""

from __future__ import annotations

import pytest

from .hostile import ASPECTS, Names, names

COUNT = 3_000


@pytest.mark.parametrize("aspect", ASPECTS)
def test_no_hostile_name_hurts(aspect: str) -> None:
    looking, before = Names(), "x"
    found = []
    for name in names(11, COUNT):
        found += looking.look(name, before, [aspect])
        before = name
    assert found[:10] == []


def test_no_two_things_have_one_name() -> None:
    looking, before = Names(), "x"
    for name in names(12, COUNT):
        looking.look(name, before, ["ids", "addresses"])
        before = name
    assert looking.collisions() == []


def test_the_names_are_those_of_their_seed() -> None:
    assert list(names(1, 50)) == list(names(1, 50)) != list(names(2, 50))

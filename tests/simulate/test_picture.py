"""What the picture shows, and that it is a picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gpudev_service.simulate import picture, series


def test_averages_share_a_span_among_the_parts_that_it_touches() -> None:
    found = series.averages([(0, 150, 2), (100, 10_000, 1)], until=100 * series.POINTS)
    assert found[:3] == [2, pytest.approx(1 + 1), 1]
    assert found[99] == 1
    assert found[100] == 0


def test_a_wait_lies_between_its_ticks() -> None:
    last = len(series.WAITS) - 1
    assert series.place(0) == 0
    assert series.place(300) == pytest.approx(0.5 / last)
    assert series.place(3600) == pytest.approx(2 / last)
    assert series.place(10**9) == 1


def test_everybody_has_waited_no_longer_than_the_last_tick() -> None:
    points = series.cumulative([0, 0, 600, 10**9])
    assert [points[0], points[-1]] == [(0, 0.5), (1, 1)]


def test_the_picture_is_well_formed_and_names_what_it_shows() -> None:
    lines = series.Series([0.5, 1.0], [0, 7], [(0, 0.1), (1, 1)])
    names = ["gpudev", "a & <b>", "Slurm's rules"]
    text = picture.svg("a <trace>", dict.fromkeys(names, lines), 7 * 86_400)
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert {"a <trace>", *names, "day 0", "day 7", "4 h"} <= set(texts)
    drawn = [e for e in root.iter(f"{space}path") if (e.get("class") or "").startswith("line")]
    assert len(drawn) == len(names) * 4, "in the legend and in three panels"
    assert "prefers-color-scheme: dark" in text

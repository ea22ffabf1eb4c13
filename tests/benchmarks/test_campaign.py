"""Percentiles are moments that were measured."""

from pathlib import Path

import pytest

import benchmarks
from benchmarks.campaign import percentile


def test_the_99th_of_few_is_the_slowest_and_never_beyond() -> None:
    few = [1.0, 2.0, 3.0, 40.0]
    assert percentile(few, 0.99) == 40.0
    assert percentile(few, 0.5) == 2.0
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_so_many_are_not_above_it(share: float) -> None:
    values = [float(number) for number in range(1000, 0, -1)]
    assert percentile(values, share) == 1000 * share


def test_a_share_that_a_machine_rounds_up() -> None:
    assert percentile([float(number) for number in range(1, 101)], 0.07) == 7.0


def test_no_row_has_percentiles_of_its_own() -> None:
    """Those of the standard library go beyond what was measured where there is little of it."""
    folder = Path(benchmarks.__file__).parent
    assert [file.name for file in folder.glob("*.py") if "quantiles(" in file.read_text()] == []

"""Nobody starts later than first promised without a cause; `make r3` has more of the same."""

import contextlib

import pytest

from gpudev_service.planner import Changes, Hold, Reason, Slot

from .promises import PUNCTUAL, Broken, History, Ledger

SLOT = Slot(1_000, ("n1",), 4)


@pytest.mark.parametrize("stateless", [False, True], ids=["in memory", "as the service asks"])
@pytest.mark.parametrize("seed", range(1, 4))
def test_promises_are_kept_through_faults(seed: int, stateless: bool) -> None:
    ledger = History(seed, 120, stateless).run()
    assert ledger.counts["starts"] > 60
    assert ledger.counts["accepted"] == ledger.counts["starts"] + ledger.counts["cancelled"]


def test_the_ledger_notices_a_start_that_moves_in_silence() -> None:
    ledger = Ledger()
    ledger.told(Changes({"a": SLOT}, {}, {}), now=0)
    later = SLOT._replace(start_ms=1_001)
    with pytest.raises(Broken, match="in silence"):
        ledger.told(Changes({"a": later}, {}, {}), now=0)
    ledger.told(Changes({"a": later}, {"a": Reason.NODE_DRAINED}, {}), now=0)


def test_the_ledger_notices_a_late_start() -> None:
    ledger = Ledger()
    ledger.told(Changes({"a": SLOT}, {}, {}), now=0)
    ledger.latest["a"] = 2_001 + PUNCTUAL
    with pytest.raises(Broken, match="was promised"):
        ledger.begun("a", Hold("a", {"n1": 4}, 9_000), 1_001 + PUNCTUAL)


def test_only_an_absence_of_the_service_excuses_a_late_start() -> None:
    for missed in (False, True):
        ledger = Ledger()
        ledger.told(Changes({"a": SLOT}, {}, {}), now=0)
        expected = contextlib.nullcontext() if missed else pytest.raises(Broken, match="was due")
        with expected:
            ledger.begun("a", Hold("a", {"n1": 4}, 9_000), 1_001 + PUNCTUAL, missed=missed)


def test_the_ledger_notices_a_unit_that_two_hold() -> None:
    ledger = Ledger()
    ledger.told(Changes({"a": SLOT, "b": SLOT}, {}, {}), now=0)
    ledger.begun("a", Hold("a", {"n1": 5}, 9_000), 1_000)
    with pytest.raises(Broken, match="others hold"):
        ledger.begun("b", Hold("b", {"n1": 4}, 9_000), 1_000)

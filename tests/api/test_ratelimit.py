"""Limits of callers whom nobody vouches for, and the memory that they cost."""

from __future__ import annotations

import pytest

from gpudev_service.api.logs import FloodGuard
from gpudev_service.api.ratelimit import RateLimit, network


class Seconds:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_a_rate() -> None:
    time = Seconds()
    limit = RateLimit(2, 3, time)
    assert [limit.take("10.0.0.1") for _ in range(5)] == [True, True, True, False, False]
    assert limit.exhausted("10.0.0.1")
    assert limit.take("10.0.0.2")
    time.now += 0.5
    assert [limit.take("10.0.0.1") for _ in range(2)] == [True, False]
    time.now += 3600
    assert [limit.take("10.0.0.1") for _ in range(4)] == [True, True, True, False]


def test_memory_is_bounded_whatever_comes() -> None:
    limit = RateLimit(1, 1, Seconds(), most=100)
    for number in range(10_000):
        limit.take(f"10.{number // 256 // 256}.{number // 256 % 256}.{number % 256}")
    assert len(limit) == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("nonsense", "", True),
    ],
)
def test_what_shares_a_bucket(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) is same


def test_a_flood_is_counted_and_not_written_line_by_line() -> None:
    time = Seconds()
    guard = FloodGuard(time, every=10, most=2)
    assert [guard.note("10.0.0.1") for _ in range(301)] == [1] + [None] * 300
    time.now += 10
    assert guard.note("10.0.0.1") == 301
    for number in range(50):
        guard.note(f"10.0.1.{number}")
    assert len(guard) == 2

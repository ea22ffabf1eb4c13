"""Token buckets per address, in bounded memory.

Only callers whom nobody vouches for are limited: requests without credentials, and credentials that
the Hub does not know. Addresses of one IPv6 network (/64) share a bucket, since one host owns
them all.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """`rate` requests a second on average and `burst` at once, per address.

    Args:
        time: seconds, monotonic.
        most: how many addresses are remembered; the one unseen for longest goes first, which gives
            it a full bucket again.
    """

    def __init__(
        self, rate: float, burst: float, time: Callable[[], float], most: int = 10_000
    ) -> None:
        self._rate, self._burst, self._time, self._most = rate, burst, time, most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether one more request from `address` is within its limit; counts it if so."""
        bucket = self._refilled(network(address))
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def exhausted(self, address: str) -> bool:
        """Whether `take` would refuse; counts nothing."""
        return self._refilled(network(address)).tokens < 1

    def __len__(self) -> int:
        return len(self._buckets)

    def _refilled(self, key: str) -> _Bucket:
        now = self._time()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
            bucket.at = now
        return bucket


def network(address: str) -> str:
    """What shares a bucket with `address`."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"  # a unix socket, or a proxy that sent nonsense
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

"""A request that is refused must not spoil the connection that the proxy shares among callers."""

from __future__ import annotations

import httpx
import pytest

from tests.fixtures.hub import RunningHub

pytestmark = pytest.mark.hub


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "PROPFIND", "PATCH"])
def test_odd_methods_leave_the_next_caller_alone(running_hub: RunningHub, method: str) -> None:
    """Tornado closes a connection whose request it refuses early; the proxy kept it for others."""
    address = f"{running_hub.service}/api/v1/health/live"
    with httpx.Client(trust_env=False) as client:
        for _ in range(20):
            odd = client.request(method, address)
            assert odd.status_code < 500, odd.text
            assert client.get(address).status_code == 200


@pytest.mark.parametrize("size", [100_000, 2_000_000, 8_000_000])
def test_a_body_that_is_too_large_is_answered_as_such(running_hub: RunningHub, size: int) -> None:
    token = running_hub.user("large")
    answer = httpx.post(
        f"{running_hub.service}/api/v1/reservations",
        content=b"x" * size,
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        trust_env=False,
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert running_hub.call("GET", "/health/live").status_code == 200

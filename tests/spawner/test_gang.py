"""What is made beside the pods of a reservation of several nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubespawner.clients import shared_client

from . import pods
from .api_server import Away
from .pods import KEY, plan


@pytest.mark.parametrize("apart", [False, True])
async def test_a_policy_is_made_only_where_there_are_others(
    apart: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Alone it would forbid the Hub, the proxy, the service and DNS."""
    made = pods.spawner(monkeypatch, tmp_path, None)
    clients = [made.api.api_client, shared_client("NetworkingV1Api").api_client]
    api = Away()
    api.comes()
    for client in clients:
        monkeypatch.setattr(client.configuration, "host", f"http://127.0.0.1:{api.port}")
    try:
        launch = plan(nodes=["a", "b"], network_policy=apart)
        await made._gang._around(KEY, launch, "u-1")
    finally:
        for client in clients:
            await client.rest_client.pool_manager.close()
        await api.close()
    kinds = [call.rpartition("/")[2] for call in api.calls]
    assert kinds == ["secrets", "services", *(["networkpolicies"] if apart else [])]

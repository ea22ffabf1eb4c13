"""What is made beside the pods of a reservation of several nodes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubespawner.clients import shared_client

from gpudev_client.kubernetes import worker_name
from gpudev_spawner.gang import Gang

from . import pods
from .api_server import Away
from .pods import KEY, launch, plan


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


def killed(times: int) -> dict[str, Any]:
    """A server's pod that runs, and whose program the node has started again so often."""
    last = {"terminated": {"reason": "OOMKilled", "exitCode": 137}} if times else {}
    status = {"name": "notebook", "restartCount": times, "state": {"running": {}}}
    return {
        "metadata": {"name": worker_name(KEY, 0)},
        "spec": {"containers": [{"name": "notebook"}]},
        "status": {"phase": "Running", "containerStatuses": [{**status, "lastState": last}]},
    }


def test_each_start_in_place_is_told_once_and_in_words_of_its_own() -> None:
    """The service takes the same words twice in a row for one thing."""
    seen: list[dict[str, Any]] = []
    spawner: Any = SimpleNamespace(pod_named=lambda name: seen[-1])
    gang = Gang(spawner)
    told = []
    for times in (0, 1, 1, 2, 3):
        seen.append(killed(times))
        told.append(gang.news(launch(plan()).reservation))
    why = (
        "The server used more memory than it has, and was ended for it. Load less at once, or "
        "reserve more GPUs: memory comes with them."
    )
    again = f"{why} It was started again in its place"
    counted = [[f"{again}, {times} times so far."] for times in (2, 3)]
    assert told == [[], [f"{again}."], [], *counted]

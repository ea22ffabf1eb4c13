"""An API server that is not there for a moment, as while it is started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError
from kubernetes_asyncio.client import V1ObjectMeta, V1Pod

from gpudev_spawner.kube import GpuDevKubeSpawner
from gpudev_spawner.progress import Phase

from . import pods
from .api_server import Away

NAME = "gpudev-a-0"
_PODS = "/api/v1/namespaces/default/pods"


class _Told(logging.Handler):
    """Does something at the first line of a log."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then, self.lines = then, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if not self.lines:
            self._then()
        self.lines.append(record.getMessage())


@pytest.fixture
async def away() -> AsyncIterator[Away]:
    made = Away()
    yield made
    await made.close()


@pytest.fixture
async def spawner(
    away: Away, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[GpuDevKubeSpawner]:
    made = pods.spawner(
        monkeypatch, tmp_path, None, k8s_api_request_timeout=5, k8s_api_request_retry_timeout=30
    )
    client = made.api.api_client
    monkeypatch.setattr(client.configuration, "host", f"http://127.0.0.1:{away.port}")
    yield made
    await client.rest_client.pool_manager.close()


@pytest.fixture
def told(spawner: GpuDevKubeSpawner, away: Away) -> Iterator[_Told]:
    """The API server comes when the first refusal is told."""
    handler = _Told(away.comes)
    spawner.log.addHandler(handler)
    yield handler
    spawner.log.removeHandler(handler)


async def test_a_stop_waits_for_an_api_server_that_is_started_again(
    spawner: GpuDevKubeSpawner, away: Away, told: _Told
) -> None:
    assert not await spawner.delete_object("pod", NAME, grace_period_seconds=1)
    assert (len(told.lines), away.calls) == (1, [f"DELETE {_PODS}/{NAME}"])


async def test_the_end_of_a_pod_is_asked_for_again(
    spawner: GpuDevKubeSpawner, away: Away, told: _Told
) -> None:
    assert not await spawner._exists(NAME)
    assert (len(told.lines), away.calls) == (1, [f"GET {_PODS}/{NAME}"])


async def test_a_start_asks_again_too(spawner: GpuDevKubeSpawner, away: Away, told: _Told) -> None:
    pod = V1Pod(metadata=V1ObjectMeta(name=NAME))
    assert not await spawner._make_create_pod_request(pod, 5), "another try"
    assert await spawner._make_create_pod_request(pod, 5)
    assert (len(told.lines), away.calls) == (1, [f"POST {_PODS}"])


async def test_one_that_stays_away_is_not_waited_for_without_end(
    spawner: GpuDevKubeSpawner, away: Away
) -> None:
    spawner.k8s_api_request_retry_timeout = 1
    with pytest.raises(ClientConnectionError):
        await spawner.delete_object("pod", NAME)
    assert away.calls == []


class _Watch:
    """A watch of pods that has given up, or has never seen anything."""

    def __init__(self, *, seen: bool) -> None:
        self.pods = {f"default/{NAME}": pods.pod(phase="Running")} if seen else {}
        self.first_load_future = asyncio.Future[None]()
        self.watch_task: asyncio.Future[None] | None = None
        if seen:
            self.first_load_future.set_result(None)
            self.watch_task = asyncio.Future()
            self.watch_task.set_result(None)
        else:
            self.first_load_future.set_exception(ClientConnectionError("away"))
            self.first_load_future.exception()  # somebody has looked at it

    async def stop(self) -> None:
        """It has ended already."""


@pytest.mark.parametrize("seen", [True, False])
async def test_a_server_is_not_dead_because_nobody_can_be_asked(
    spawner: GpuDevKubeSpawner, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    """However long: the Hub would take its route and its token away while it runs."""
    known = _Watch(seen=seen)
    key = spawner._get_reflector_key("pods")
    monkeypatch.setitem(type(spawner).reflectors, key, known)
    spawner.pod_name, spawner._phase = NAME, Phase.UP
    assert await spawner.poll() is None
    assert await spawner.poll() is None, "nor when it is asked again"
    assert type(spawner).reflectors[key] is known, "what was seen is kept"
    assert not spawner.sees_pods
    assert (spawner.pod_named(NAME) is not None) is seen


@pytest.mark.parametrize("there", [True, False])
async def test_it_is_looked_at_again_when_the_api_server_is_back(
    spawner: GpuDevKubeSpawner, away: Away, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Without a start of the Hub: also where the first look after the outage has failed."""
    key = spawner._get_reflector_key("pods")
    monkeypatch.setitem(type(spawner).reflectors, key, _Watch(seen=False))
    spawner.events_enabled = False
    spawner.pod_name, spawner._phase = NAME, Phase.UP
    assert await spawner.poll() is None
    if there:
        found = pods.pod()
        named = {**found["metadata"], "namespace": "default", "name": NAME}
        away.pods.append({**found, "metadata": named})
    away.comes()
    try:
        assert await spawner.poll() == (None if there else 1)
        assert spawner.sees_pods
    finally:
        await type(spawner).reflectors[key].stop()

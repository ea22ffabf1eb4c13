"""Reservations as Python objects, against a whole service."""

from __future__ import annotations

import asyncio
import base64
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_client import (
    AsyncGpuDev,
    ConfigError,
    GpuDev,
    InvalidInput,
    NotFound,
    ReservationEnded,
    State,
    Unreachable,
    WaitTimeout,
)
from gpudev_client import _calls as calls
from gpudev_client._waiting import release, wait_until_active
from tests.cli.running import Running

from .models import ID, event, ok, refused, reservation, sse, stream
from .playing import CUT, Played, Told

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def configured(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As inside a server: the address and the server's own token, and no configuration."""
    for name in ("GPUDEV_URL", "GPUDEV_TOKEN", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUDEV_CONFIG", str(tmp_path / "none.json"))
    if "service" in request.fixturenames:
        service: Running = request.getfixturevalue("service")
        service.show_present_time()
        monkeypatch.setenv("GPUDEV_URL", service.url)
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", service.token("ada"))


def key_line(number: int) -> str:
    kind = b"ssh-ed25519"
    parts = (len(kind).to_bytes(4), kind, (32).to_bytes(4), bytes(range(number, number + 32)))
    return f"{kind.decode()} {base64.b64encode(b''.join(parts)).decode()} k{number}"


async def test_keys_that_are_changed_at_once_are_all_changed(service: Running) -> None:
    async with AsyncGpuDev() as gpudev:
        numbers = range(1, 7)
        await asyncio.gather(*(gpudev.add_ssh_key(key_line(one)) for one in numbers))
        assert {key.comment for key in await gpudev.ssh_keys()} == {f"k{one}" for one in numbers}
        await asyncio.gather(*(gpudev.remove_ssh_key(f"k{one}") for one in numbers if one > 1))
        (left,) = await gpudev.ssh_keys()
        assert left.comment == "k1"
        assert await gpudev.remove_ssh_key(left.fingerprint) == []


def test_a_lease_for_a_block(service: Running) -> None:
    with GpuDev() as gpudev:
        with gpudev.reserve(gpu_type="t4", gpus=1, hours=0.5, name="block") as r:
            assert str(r.state) == "active"
            assert r.time_left is not None
            assert timedelta(minutes=29) < r.time_left <= timedelta(minutes=30)
            assert r.url
            assert r.url.endswith("/lab")
            r.extend(0.5)
            assert r.time_left > timedelta(minutes=59)
            assert [x.id for x in gpudev.reservations()] == [r.id]
            assert next(iter(r.history())).kind == "transition"
        assert r.state in (State.STOPPING, State.CANCELLED)
        service.pass_time(seconds=1)
        assert r.refresh().state is State.CANCELLED
        assert gpudev.reservations() == []
        assert [x.id for x in gpudev.reservations(states=())] == [r.id]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_lease_is_given_back_after_an_error(service: Running, error: BaseException) -> None:
    with GpuDev() as gpudev:
        with pytest.raises(type(error)), gpudev.reserve(gpu_type="t4", hours=1) as r:
            raise error
        service.pass_time(seconds=1)
        assert r.refresh().state is State.CANCELLED


def test_an_interrupted_wait_leaves_nothing_in_the_queue(service: Running) -> None:
    service.reserve("grace", hours=2)

    class Interrupting(GpuDev):
        """Ctrl-C arrives while it waits."""

    with Interrupting() as gpudev:
        r = gpudev.reserve(gpu_type="t4-small", hours=1)
        run = gpudev.client.transport.run

        def interrupted(flow: object) -> object:
            gpudev.client.transport.run = run  # type: ignore[method-assign]
            raise KeyboardInterrupt

        gpudev.client.transport.run = interrupted  # type: ignore[assignment, method-assign]
        with pytest.raises(KeyboardInterrupt):
            r.__enter__()
        assert r.refresh().state is State.CANCELLED


def test_waiting_tells_each_change(service: Running) -> None:
    ahead = service.reserve("grace", hours=2)
    seen: list[State] = []

    with GpuDev() as gpudev:
        r = gpudev.reserve(gpu_type="t4-small", hours=1)

        def changed(model: object) -> None:
            seen.append(model.state)  # type: ignore[attr-defined]
            if len(seen) == 1:
                with service.client("grace") as client:
                    client.cancel(ahead)
                service.pass_time(seconds=1)

        r.wait(on_change=changed)
        assert str(r.state) == "active"
        assert seen[0] is State.QUEUED
        assert seen[-1] is State.ACTIVE


def test_what_is_told_of_changes_is_interrupted_as_ever(service: Running) -> None:
    seen: list[str] = []

    def changed(_: object) -> None:
        seen.append("told")
        signal.raise_signal(signal.SIGINT)
        seen.append("went on")

    service.reserve("grace", hours=2)
    with GpuDev() as gpudev:
        r = gpudev.reserve(gpu_type="t4-small", hours=1)
        with pytest.raises(KeyboardInterrupt):
            r.wait(on_change=changed)
    assert seen == ["told"]


def test_a_wait_with_a_limit(service: Running) -> None:
    service.reserve("grace", hours=2)
    with GpuDev() as gpudev:
        r = gpudev.reserve(gpu_type="t4-small", hours=1)
        with pytest.raises(WaitTimeout, match="still queued"):
            r.wait(timeout=0.05)
        assert r.refresh().state is State.QUEUED


def test_a_reservation_that_ends_while_it_is_waited_for(service: Running) -> None:
    service.reserve("grace", hours=2)
    with GpuDev() as gpudev:
        r = gpudev.reserve(gpu_type="t4-small", hours=1)
        r.cancel()
        with pytest.raises(ReservationEnded, match="is cancelled") as caught:
            r.wait()
        assert caught.value.reservation.id == r.id
        assert r.cancel().state is State.CANCELLED, "cancelling again does no harm"


def test_wrong_input_names_the_field(service: Running) -> None:
    with GpuDev() as gpudev:
        with pytest.raises(InvalidInput) as caught:
            gpudev.reserve(gpu_type="t4", gpus=-1, hours=1)
        assert caught.value.field == "gpus"
        with pytest.raises(InvalidInput) as caught:
            gpudev.reserve(gpu_type="t5")
        assert caught.value.field == "gpu_type"
        assert "t4" in caught.value.accepted
        with pytest.raises(InvalidInput, match="colour"):
            gpudev.reserve(gpu_type="t4", hours=1, colour="red")
        with pytest.raises(NotFound):
            gpudev.reservation("nowhere")


def test_what_there_is(service: Running) -> None:
    with GpuDev() as gpudev:
        assert {a.gpu_type for a in gpudev.availability()} == {t.name for t in gpudev.gpu_types()}
        made = gpudev.reserve(gpu_type="t4", hours=1, disk="work", create_disk=True)
        assert [d.name for d in gpudev.disks()] == ["work"]
        assert any(use.mine for node in gpudev.cluster().nodes for use in node.held)
        assert gpudev.reservation(made.id).name == made.name


async def test_the_async_twin(service: Running) -> None:
    ahead = await asyncio.to_thread(service.reserve, "grace", hours=2)
    async with AsyncGpuDev() as gpudev:
        r = await gpudev.reserve(gpu_type="t4-small", hours=0.5)
        assert str(r.state) == "queued"
        waiting = asyncio.create_task(r.wait())

        async with AsyncGpuDev(token=service.token("grace")) as other:
            await (await other.reservation(ahead)).cancel()
        await asyncio.to_thread(service.pass_time, seconds=1)
        await waiting
        async with r:
            assert str(r.state) == "active"
            assert (await r.history().all())[0].state is State.QUEUED
            assert [x.id for x in await gpudev.reservations()] == [r.id]
        await asyncio.to_thread(service.pass_time, seconds=1)
        assert (await r.refresh()).state is State.CANCELLED
        assert await gpudev.disks() == []
        assert {a.gpu_type for a in await gpudev.availability()} == {
            t.name for t in await gpudev.gpu_types()
        }
        assert (await gpudev.cluster()).simulated


async def test_a_cancelled_task_gives_its_lease_back(service: Running) -> None:
    async with AsyncGpuDev() as gpudev:
        r = await gpudev.reserve(gpu_type="t4", hours=1)
        inside = asyncio.Event()

        async def work() -> None:
            async with r:
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(service.pass_time, seconds=1)
        assert (await r.refresh()).state is State.CANCELLED


def test_without_configuration_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="gpu-dev login"):
        GpuDev()


# --- flows by hand: what a service on loopback does not do ---------------------------------------


def test_waiting_survives_a_cut() -> None:
    queued, active = event(2, State.QUEUED), event(4, State.ACTIVE)
    told: Told = [ok(reservation(State.QUEUED)), stream(), sse(queued), CUT, stream(), sse(active)]
    played = Played(wait_until_active(ID), told)
    assert played.result.state is State.ACTIVE
    assert played.calls[-1].headers["Last-Event-ID"] == "2"


def test_waiting_ends_when_nobody_answers_any_more() -> None:
    told: Told = [ok(reservation(State.QUEUED)), *[CUT] * 20]
    assert isinstance(Played(wait_until_active(ID), told).error, Unreachable)


@pytest.mark.parametrize("state", [State.EXPIRED, State.CANCELLED, State.STOPPING])
def test_giving_back_what_is_over_is_no_error(state: State) -> None:
    played = Played(release(ID), [refused(409, "wrong_state"), ok(reservation(state))])
    assert played.error is None
    assert played.result.state is state


def test_giving_back_what_cannot_be_is_an_error() -> None:
    told: Told = [refused(409, "wrong_state", "Not now."), ok(reservation())]
    error = Played(release(ID), told).error
    assert error is not None
    assert str(error) == "Not now."


def test_a_silent_stream_comes_back_in_time_for_the_limit() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 10
            return self.now

    told: Told = [ok(reservation(State.QUEUED)), stream(), b": still there\n\n", CUT]
    played = Played(wait_until_active(ID, timeout=45, clock=Clock()), told)
    assert isinstance(played.error, WaitTimeout)
    assert played.calls[1].silence is not None
    assert played.calls[1].silence <= 45


def test_the_same_key_gives_the_same_reservation(service: Running) -> None:
    from gpudev_client import models

    request = models.ReservationRequest(gpu_type="t4", hours=1)
    with service.client() as client:
        flows = [calls.reserve(request, idempotency_key="once-and-for-all") for _ in range(2)]
        first, second = (client.transport.run(flow) for flow in flows)
        assert first.id == second.id
        assert len(client.reservations().all()) == 1

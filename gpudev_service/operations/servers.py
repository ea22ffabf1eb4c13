"""What the Hub's spawner needs for a reservation's server, and what it reports about it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.ids import MARK
from gpudev_client.models import PodLaunch, Reservation, ServerLaunch, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import SERVICE, Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.store.models import HistoryRow, ReservationRow

from . import disks, notices, placing, pods, views
from .reservations import end_in
from .rows import load
from .transitions import Entry, note, transition

log = logging.getLogger(__name__)

_STARTABLE = {State.PREPARING, State.ACTIVE}


def tell(ctx: Context, entries: Iterable[Entry]) -> None:
    """Shows what the entries say in the terminals of their reservations' servers."""
    for entry in entries:
        key = f"tell:{entry.reservation_id}:{entry.id}"
        ctx.background.start(key, _tell(ctx, entry.reservation_id, entry.reason))


async def _tell(ctx: Context, reservation_id: str, text: str) -> None:
    await ctx.servers.tell(reservation_id, text)


async def launch(ctx: Context, reservation_id: str) -> ServerLaunch:
    """Environment and home of a server whose lease runs; makes the disk's directory.

    Raises:
        Refusal: `wrong_state` where no lease runs: then nothing may be started; `planned_again`
            where its node has gone and it waits again.
    """
    async with ctx.store.reading() as session:
        row = await load(session, reservation_id)
        view = await views.reservation(ctx, session, row)
    if view.state not in _STARTABLE:
        raise Refusal("wrong_state", f"The reservation is {view.state}; nothing may be started.")
    view = await placing.startable(ctx, view)
    if row.disk_id:
        await disks.ensure(ctx, row.disk_id)
    if ctx.settings.servers == "kubernetes":
        return ServerLaunch(
            reservation=view,
            environment=environment(ctx, view),
            home=ctx.settings.kubernetes.home,
            pods=await _pods(ctx, view, row),
        )
    home: Path
    if row.disk_id:
        home = ctx.disks.path(row.disk_id)
    else:
        home = scratch(ctx, row.id)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ServerLaunch(reservation=view, environment=environment(ctx, view), home=str(home))


async def _pods(ctx: Context, view: Reservation, row: ReservationRow) -> PodLaunch:
    machines = {node.name: node.machine for node in ctx.fleet.nodes()}
    places = [place.node for place in view.placement]
    return pods.pod_launch(
        ctx.fleet.types()[row.gpu_type],
        [machines.get(name, name) for name in places],
        row.units_per_node,
        [ctx.fleet.share(name, row.units_per_node, row.id) for name in places],
        claim=await ctx.disks.claim(row.disk_id) if row.disk_id else None,
        shared_claim=await _shared(ctx, row),
        image=row.image,
        network_policies=ctx.settings.kubernetes.network_policies,
    )


async def _shared(ctx: Context, row: ReservationRow) -> str | None:
    """The claim of the folder that a reservation of several nodes has, where there are such."""
    if ctx.shared is None or row.nodes == 1:
        return None
    try:
        return await ctx.shared.ensure(row.id)
    except KubeAway as away:
        raise Refusal(
            "unavailable",
            "Nothing can be started at the moment: the cluster does not answer. It is tried again.",
        ) from away
    except KubeRefused as refusal:
        log.warning("no shared folder for %s: %s", row.id, refusal)
        raise Refusal(
            "wrong_state",
            "The cluster refused the folder that your nodes share. Your operators find the reason "
            "in the log.",
        ) from refusal


def scratch(ctx: Context, reservation_id: str) -> Path:
    """The home of a server without a disk; removed when its lease is over."""
    return ctx.settings.data_dir / "scratch" / reservation_id


def environment(ctx: Context, view: Reservation) -> dict[str, str]:
    """What a server finds in its environment; documented in the user guide.

    A server of several nodes runs on the first one and sees that node's GPUs. Without GPUs
    `CUDA_VISIBLE_DEVICES` is empty, which hides all of them. In a pod the cluster's device plugin
    says which GPUs there are.
    """
    first = view.placement[0]
    devices = ",".join(first.gpu_ids)
    kind = ctx.fleet.types().get(view.gpu_type)
    values = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": devices,
        "NVIDIA_VISIBLE_DEVICES": devices or "void",
        MARK: view.id,
        "GPUDEV_NAME": view.name,
        "GPUDEV_GPU_TYPE": view.gpu_type,
        "GPUDEV_GPUS": str(view.gpus),
        "GPUDEV_GPU_MEMORY_GB": str(kind.gpu_memory_gb or "") if kind else "",
        "GPUDEV_NODE": first.node,
        "GPUDEV_NODES": ",".join(place.node for place in view.placement),
        "GPUDEV_STARTS_AT": _iso(view.starts_at),
        "GPUDEV_EXPIRES_AT": _iso(view.expires_at),
        "GPUDEV_DISK": view.disk or "",
        "GPUDEV_SIMULATED": "1" if view.simulated else "",
        "GPUDEV_URL": ctx.settings.url_for_servers,
    }
    if ctx.settings.servers == "kubernetes" and view.gpus:
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
            del values[name]
    return values


def _iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


async def report(
    ctx: Context, reservation_id: str, actor: Actor, said: ServerReport
) -> Reservation:
    """Takes in what the spawner says; a report that comes twice or too late changes nothing."""

    async def work(session: AsyncSession) -> tuple[views.Known, list[Entry]]:
        row = await load(session, reservation_id)
        now = ctx.clock.now()
        entries = await _take_in(ctx, session, row, said, now)
        await session.flush()
        return await views.owned(ctx, session, [row]), entries

    known, entries = await ctx.store.run(work)
    await views.publish(ctx, entries, known)
    _, view = known[reservation_id]
    return view


async def _take_in(
    ctx: Context, session: AsyncSession, row: ReservationRow, said: ServerReport, now: datetime
) -> list[Entry]:
    state = State(row.state)
    match said.status:
        case "starting":
            steps = await _steps(session, row, said, now)
            return [*_starting(session, row, said, now), *steps]
        case "running":
            return [*await _steps(session, row, said, now), *_running(session, row, now)]
        case "failed" if state is State.PREPARING:
            why = said.message or "The server did not start."
            steps = await _steps(session, row, said, now)
            return [*steps, *await end_in(ctx, session, row, State.FAILED, why, SERVICE, now)]
        case "failed" | "note" if state in _STARTABLE:
            why = said.message or "The server did not start again."
            of = notices.failed_start() if said.status == "failed" else notices.happened()
            return [*await _told_once(session, row, "server", why, now, of)]
        case "stopped" | "left":
            owner = Actor(row.user)
            why = said.message or (
                "Given back by its owner." if state in _STARTABLE else "Left the queue."
            )
            return await end_in(ctx, session, row, State.CANCELLED, why, owner, now)
    return []


def _starting(
    session: AsyncSession, row: ReservationRow, said: ServerReport, now: datetime
) -> list[HistoryRow]:
    """The handle is kept in every state: what was started must be found, and stopped, even when
    the lease has ended in between. The spawner sees that in the answer's state."""
    known = row.server_handle
    row.server_handle = dict(said.handle) if said.handle else known
    repeated = bool(known) and row.server_handle == known
    if repeated or State(row.state) not in _STARTABLE:
        return []
    return [note(session, row, "server", "The server is starting.", actor=SERVICE.name, now=now)]


async def _told_once(
    session: AsyncSession,
    row: ReservationRow,
    kind: str,
    why: str,
    now: datetime,
    data: dict[str, Any] | None = None,
) -> list[HistoryRow]:
    """A line of this kind, unless it is the last one of the kind that was said."""
    last = await session.scalar(
        select(HistoryRow.reason)
        .where(HistoryRow.reservation_id == row.id, HistoryRow.kind == kind)
        .order_by(HistoryRow.id.desc())
        .limit(1)
    )
    if last == why:
        return []
    return [note(session, row, kind, why, actor=SERVICE.name, now=now, data=data)]


async def _steps(
    session: AsyncSession, row: ReservationRow, said: ServerReport, now: datetime
) -> list[HistoryRow]:
    """The start's steps, for whoever asks where its time went. A repeated report adds nothing."""
    state = State(row.state)
    starts = state is State.PREPARING or (state is State.ACTIVE and row.server_lost_at is not None)
    if not said.milestones or not starts:
        return []
    data = {"steps": [one.model_dump(mode="json") for one in said.milestones]}
    told = words.steps([(one.step, one.at) for one in said.milestones])
    return await _told_once(session, row, "milestones", told, now, data)


def _running(session: AsyncSession, row: ReservationRow, now: datetime) -> list[HistoryRow]:
    if State(row.state) is State.PREPARING:
        return [
            transition(
                session,
                row,
                State.ACTIVE,
                reason="The server is running.",
                actor=SERVICE.name,
                now=now,
            )
        ]
    if State(row.state) is State.ACTIVE and row.server_lost_at is not None:
        row.server_lost_at = None
        return [note(session, row, "server", "The server runs again.", actor=SERVICE.name, now=now)]
    return []

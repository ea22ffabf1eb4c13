"""What a reservation's own server has to know, what it says, and the way into it by SSH."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.models import (
    ClosingReport,
    ClosingTimes,
    LabAccess,
    LabView,
    Reservation,
    Snapshot,
    SshAccess,
    SshHostReport,
    TicketHolder,
)
from gpudev_client.states import WAITING, State
from gpudev_service import ssh_keys
from gpudev_service.actor import SERVICE, Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal, not_found
from gpudev_service.store.models import DiskRow, HistoryRow, ReservationRow, SshHostRow

from . import disks, keys, reservations, sharing, snapshots, views
from .rows import load
from .transitions import Entry, Told, note

#: Snapshots that a server is shown.
_SNAPSHOTS = 5
#: Lines that a server may add to its reservation's history; whoever works in it has its token, so
#: that no count of one kind, or of the time before, may take the place of what is said at an end.
_LINES_MAX = {"closing": 20, "server": 20}
_LINES_AT_END = 5
#: What the clocks of server and service may differ by at an end.
_CLOCKS = timedelta(minutes=1)
#: Unsaved documents that the history names.
_NAMED = 5
_RUNNING = frozenset({State.PREPARING, State.ACTIVE})
#: Where a line of the history holds why the server has no SSH.
_NO_SSH = "no_ssh"


async def view(ctx: Context, reservation_id: str) -> LabView:
    """The reservation, who may come in with which keys, its disk, and what its end allows for."""
    reservation = await reservations.get(ctx, reservation_id)
    async with ctx.store.reading() as session:
        row = await load(session, reservation_id)
        who = [row.user, *(one.user for one in reservation.collaborators if one.role == "use")]
        lines = await keys.lines(session, who)
        disk = await session.get(DiskRow, row.disk_id) if row.disk_id else None
        shown = (await disks.views(ctx, session, [disk]))[0] if disk is not None else None
        taken = await snapshots.newest(ctx, session, disk, _SNAPSHOTS) if disk is not None else []
    owner = LabAccess(
        user=row.user, role="use", keys=lines.get(row.user, []), until=row.expires_at, owner=True
    )
    others = [
        LabAccess(
            user=one.user,
            role=one.role,
            keys=lines.get(one.user, []),
            until=one.until or row.expires_at,
            owner=False,
        )
        for one in reservation.collaborators
    ]
    times = ctx.settings.times
    return LabView(
        reservation=reservation,
        access=[owner, *others],
        disk=shown,
        snapshots=taken,
        closing=ClosingTimes(
            hook_seconds=times.hook, save_seconds=times.saving, early_seconds=times.closing
        ),
    )


# --- SSH --------------------------------------------------------------------------------------


async def way_in(ctx: Context, reservation_id: str, user: str, until: datetime) -> SshAccess:
    """How `user` gets into the server by SSH, with a ticket (still to be made) until `until`.

    Raises:
        Refusal: `wrong_state` while it waits and when it is over, `no_ssh_keys`, `no_ssh` where
            the server cannot be reached so, `server_not_ready` as long as it is worth coming
            again.
    """
    async with ctx.store.reading() as session:
        row = await load(session, reservation_id)
        seen = await views.reservation(ctx, session, row)
        host = await session.get(SshHostRow, reservation_id)
        lines = await keys.lines(session, [user])
        why_not = await _why_no_ssh(session, reservation_id) if host is None else None
    state = State(row.state)
    if state not in WAITING and state not in _RUNNING:
        raise Refusal("wrong_state", _over(seen, ctx.clock.now()))
    if not lines:
        raise Refusal(
            "no_ssh_keys",
            "You have no SSH key at gpudev yet. Add one with `gpu-dev ssh-keys add`, or on the "
            "page SSH keys.",
        )
    if state in WAITING:
        raise Refusal("wrong_state", _waits(seen, ctx.clock.now()))
    if seen.server_lost_at is not None:
        raise Refusal(
            "server_not_ready",
            "The server has ended unexpectedly. Start it again from the Hub's home page.",
        )
    if why_not is not None:
        raise Refusal(
            "no_ssh",
            f"This server cannot be reached by SSH: {why_not} JupyterLab in the browser works all "
            "the same. Whoever makes the image or runs the Hub finds what SSH needs in the "
            "operators' guide under SSH.",
        )
    if host is None:
        raise Refusal("server_not_ready", _not_yet(state))
    return SshAccess(
        host=views.ssh_host(row.id),
        login=host.login,
        home=host.home,
        url=_ssh_url(ctx, row),
        ticket="",
        expires_at=until,
        host_keys=list(host.host_keys),
    )


async def holder(ctx: Context, reservation_id: str, user: str) -> TicketHolder:
    """What the holder of a ticket may do now; a ticket of somebody who was removed since then
    is none."""
    async with ctx.store.reading() as session:
        row = await load(session, reservation_id)
        owner = (await views.owners(session, [row]))[row.id]
        lines = await keys.lines(session, [user])
    own = row.user == user
    invitation = sharing.standing(owner.invited, user, ctx.clock.now())
    usable = own or (invitation is not None and invitation.role == "use")
    if State(row.state) not in _RUNNING or not usable:
        raise not_found("ticket")
    return TicketHolder(user=user, role="use", keys=lines.get(user, []), owner=own)


async def publish_host(ctx: Context, reservation_id: str, said: SshHostReport) -> Reservation:
    """Takes in the server's host keys, or why it has none. A server that starts again says the
    same once more."""
    found = [key.line for key in ssh_keys.parse_all(said.host_keys, "host_keys")]

    async def work(session: AsyncSession) -> tuple[Reservation, list[Entry]]:
        row = await load(session, reservation_id)
        if State(row.state) not in _RUNNING:
            raise Refusal("wrong_state", f"The reservation is {row.state}; no server runs.")
        host = await session.get(SshHostRow, reservation_id)
        if said.login is None:
            entries = await _without_ssh(ctx, session, row, host, said.unavailable or "")
            return await views.reservation(ctx, session, row), entries
        entries = []
        before = None if host is None else (host.host_keys, host.login, host.home)
        if before != (found, said.login, said.home):
            text = "The server can be reached by SSH."
            if before is not None:
                text = f"The way in by SSH has changed: {_what_changed(before, found)}."
            entries = [await _said(ctx, session, row, text)]
            await session.merge(
                SshHostRow(reservation_id=row.id, host_keys=found, login=said.login, home=said.home)
            )
            await session.flush()
        return await views.reservation(ctx, session, row), entries

    seen, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return seen


async def _without_ssh(
    ctx: Context, session: AsyncSession, row: ReservationRow, host: SshHostRow | None, why: str
) -> list[Entry]:
    """Notes why a server cannot be reached by SSH; whoever asks for the way in is told."""
    if host is None and await _why_no_ssh(session, row.id) == why:
        return []
    if host is not None:
        await session.delete(host)  # of a server that ran here before
    text = f"The server cannot be reached by SSH: {why}"
    entry = await _said(ctx, session, row, text, {_NO_SSH: why})
    await session.flush()
    return [entry]


async def _why_no_ssh(session: AsyncSession, reservation_id: str) -> str | None:
    """What the server has said last about having no SSH; None where it has not."""
    lines = await session.scalars(
        select(HistoryRow.data)
        .where(HistoryRow.reservation_id == reservation_id, HistoryRow.kind == "server")
        .order_by(HistoryRow.id.desc())
    )
    return next((str(data[_NO_SSH]) for data in lines if _NO_SSH in data), None)


async def _said(
    ctx: Context,
    session: AsyncSession,
    row: ReservationRow,
    text: str,
    data: dict[str, Any] | None = None,
) -> Entry:
    """A line about the server; where it has said too much it takes effect all the same, and is
    told, but not kept."""
    now = ctx.clock.now()
    if await _may_say(ctx, session, row, "server"):
        return note(session, row, "server", text, actor=SERVICE.name, now=now, data=data)
    return Told(row.id, "server", text, now)


def _what_changed(before: tuple[list[str], str, str | None], host_keys: list[str]) -> str:
    return "the host key" if before[0] != host_keys else "the account"


def _ssh_url(ctx: Context, row: ReservationRow) -> str:
    base = ctx.settings.public_url.rstrip("/")
    user, name = quote(row.user, safe=""), quote(row.server_name, safe="")
    return f"{base}/user/{user}/{name}/gpudev/ssh" if name else f"{base}/user/{user}/gpudev/ssh"


def _waits(seen: Reservation, now: datetime) -> str:
    start = words.start_in_words(seen.promised_start, now, UTC, show_zone=True)
    if seen.state is State.SCHEDULED:
        return f"The reservation is booked and has no server yet: it {start}."
    place = words.queue_place(seen.position)
    return f"The reservation waits and has no server yet: {place}, {start}."


def _not_yet(state: State) -> str:
    if state is State.PREPARING:
        return "The server is still starting. Come again in a moment."
    return (
        "The server runs and gets ready for SSH. Where that takes minutes, its image lacks "
        "gpudev's part for JupyterLab."
    )


def _over(seen: Reservation, now: datetime) -> str:
    if seen.ended_at is None:
        return "The lease is ending; its server can no longer be entered."
    at = words.at_moment(seen.ended_at, now, UTC, show_zone=True)
    return f"The reservation ended {words.ago(seen.ended_at, now)}, {at}."


# --- what the server says and asks for --------------------------------------------------------


async def snapshot(ctx: Context, reservation_id: str, text: str | None, actor: Actor) -> Snapshot:
    """Begins a snapshot of the lease's disk.

    Raises:
        Refusal: `wrong_state` without a running lease or without a disk.
    """
    async with ctx.store.reading() as session:
        row = await load(session, reservation_id)
        disk = await session.get(DiskRow, row.disk_id) if row.disk_id else None
    if State(row.state) not in _RUNNING:
        raise Refusal("wrong_state", f"The reservation is {row.state}; no lease runs.")
    if disk is None:
        raise Refusal(
            "wrong_state", "The reservation runs without a disk: there is nothing to keep."
        )
    return await snapshots.take(ctx, row.user, disk.name, text, actor)


async def closing(ctx: Context, reservation_id: str, said: ClosingReport) -> Reservation:
    """Notes what the server did before its end, and lets an end that waits for it go on, also
    where the line is not kept.

    Raises:
        Refusal: `wrong_state`; `too_many_requests` where the server has said enough.
    """

    async def work(session: AsyncSession) -> tuple[State, list[Entry], Refusal | None]:
        row = await load(session, reservation_id)
        if State(row.state) not in {*_RUNNING, State.STOPPING}:
            raise Refusal("wrong_state", f"The reservation is {row.state}; no server runs.")
        before = await session.scalar(
            select(HistoryRow)
            .where(HistoryRow.reservation_id == row.id, HistoryRow.kind == "closing")
            .order_by(HistoryRow.id.desc())
            .limit(1)
        )
        data = said.model_dump()
        if before is not None and before.data == data:
            return State(row.state), [], None
        if not await _may_say(ctx, session, row, "closing"):
            refusal = Refusal("too_many_requests", "The server has said enough for this end.")
            return State(row.state), [], refusal
        now, text = ctx.clock.now(), _closing_words(said)
        line = note(session, row, "closing", text, actor=SERVICE.name, now=now, data=data)
        return State(row.state), [line], None

    state, entries, refusal = await ctx.store.run(work)
    if state is State.STOPPING:
        ctx.labs.closed(reservation_id)
    if refusal is not None:
        raise refusal
    await views.publish(ctx, entries)
    return await reservations.get(ctx, reservation_id)


def _closing_words(said: ClosingReport) -> str:
    text = f"Before the end {words.counted(said.saved, 'document')} saved."
    text = text.replace("no documents saved", "there was nothing to save")
    if said.unsaved:
        more = len(said.unsaved) - _NAMED
        text += f" Not saved: {', '.join(said.unsaved[:_NAMED])}"
        text += f" and {more} more." if more > 0 else "."
    return f"{text} Your hook: {said.hook}" if said.hook else text


async def _may_say(ctx: Context, session: AsyncSession, row: ReservationRow, kind: str) -> bool:
    """Whether the history takes one more line of this kind by the server itself: not more of them
    than anybody reads, and at an end some of its own."""
    line = HistoryRow
    lines = select(func.count()).where(line.reservation_id == row.id, line.kind == kind)
    if (await session.scalar(lines) or 0) < _LINES_MAX[kind]:
        return True
    begun = _ending_since(ctx, row) if kind == "closing" else None
    if begun is None:
        return False
    return (await session.scalar(lines.where(line.at >= begun)) or 0) < _LINES_AT_END


def _ending_since(ctx: Context, row: ReservationRow) -> datetime | None:
    """Since when the reservation's present end has been near; None while it is not."""
    if State(row.state) is State.STOPPING:
        return row.stopping_at
    if row.expires_at is None:
        return None
    times = ctx.settings.times
    begun = row.expires_at - timedelta(seconds=times.hook + times.saving) - _CLOCKS
    return begun if begun <= ctx.clock.now() else None

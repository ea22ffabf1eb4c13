"""People's public SSH keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import limits
from gpudev_client.models import SshKey, SshKeys
from gpudev_client.states import State
from gpudev_service import ssh_keys
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.store.models import HistoryRow, ReservationRow, SshKeyRow

from . import sharing, views
from .transitions import Entry, Told, note

#: How often, and how many times in all, one reservation's history says that somebody changed
#: somebody's keys: collaborators write there by it.
_LINE_EVERY = timedelta(minutes=1)
_LINES_MAX = 20

#: Keys by fingerprint.
Keys = dict[str, ssh_keys.PublicKey]


async def listing(ctx: Context, user: str) -> SshKeys:
    """A user's keys, oldest first."""
    async with ctx.store.reading() as session:
        return _view(await _rows(session, [user]))


async def replace(ctx: Context, user: str, lines: Iterable[str], actor: Actor) -> SshKeys:
    """Makes `lines` the keys of `user`. Servers whose doors they open learn of it at once.

    Raises:
        Refusal: `invalid_input` naming the first line that is no key; nothing is changed then.
    """
    wanted = ssh_keys.parse_all(lines, "keys")
    return await _change(ctx, user, actor, lambda _: {key.fingerprint: key for key in wanted})


async def add(ctx: Context, user: str, lines: Iterable[str], actor: Actor) -> SshKeys:
    """Adds keys to those of `user`; one that is there already takes the new comment.

    Raises:
        Refusal: as `replace`, and `quota` where there would be too many.
    """
    fresh = {key.fingerprint: key for key in ssh_keys.parse_all(lines, "keys")}

    def together(before: Keys) -> Keys:
        both = {**before, **fresh}
        if len(both) > limits.SSH_KEYS_MAX:
            raise Refusal(
                "quota",
                f"{limits.SSH_KEYS_MAX} keys are the limit. Remove one that is not used any more.",
                field="keys",
                accepted={"max": limits.SSH_KEYS_MAX},
            )
        return both

    return await _change(ctx, user, actor, together)


async def remove(ctx: Context, user: str, fingerprint: str, actor: Actor) -> SshKeys:
    """Removes a key; one that is not there is gone already."""
    return await _change(
        ctx, user, actor, lambda before: {f: k for f, k in before.items() if f != fingerprint}
    )


async def _change(ctx: Context, user: str, actor: Actor, decide: Callable[[Keys], Keys]) -> SshKeys:
    async def work(session: AsyncSession) -> tuple[SshKeys, list[Entry]]:
        now = ctx.clock.now()
        before = {row.fingerprint: row for row in await _rows(session, [user])}
        wanted = decide({f: _public(row) for f, row in before.items()})
        for fingerprint in before.keys() - wanted.keys():
            await session.delete(before[fingerprint])
        for fingerprint, key in wanted.items():
            row = before.get(fingerprint)
            if row is None:
                row = SshKeyRow(
                    user=user, fingerprint=fingerprint, type=key.type, key=key.line, added_at=now
                )
                session.add(row)
            row.comment = key.comment
        await session.flush()
        view = _view(await _rows(session, [user]))
        if before.keys() == wanted.keys():
            return view, []
        return view, await _notes(session, user, actor, now)

    view, entries = await ctx.store.run(work)
    await views.publish(ctx, entries)
    return view


def _public(row: SshKeyRow) -> ssh_keys.PublicKey:
    return ssh_keys.PublicKey(row.type, row.key, row.comment, row.fingerprint)


async def lines(session: AsyncSession, users: Iterable[str]) -> dict[str, list[str]]:
    """The keys of several users as sshd takes them; without comments."""
    found: dict[str, list[str]] = {}
    for row in await _rows(session, users):
        found.setdefault(row.user, []).append(row.key)
    return found


async def _rows(session: AsyncSession, users: Iterable[str]) -> list[SshKeyRow]:
    row = SshKeyRow
    query = select(row).where(row.user.in_(set(users))).order_by(row.added_at, row.fingerprint)
    return list(await session.scalars(query))


async def _notes(session: AsyncSession, user: str, actor: Actor, now: datetime) -> list[Entry]:
    """A line for each lease that the user may enter; its server reads the keys anew on it. What
    would be too many lines in somebody else's history is told to the server, and not kept."""
    row = ReservationRow
    entered = select(row).where(
        row.state.in_((State.PREPARING, State.ACTIVE)),
        or_(row.user == user, sharing.invited(user, now, role="use")),
    )
    whose = "their" if actor.name == user else f"{user}'s"
    said = f"{actor.name} changed {whose} SSH keys."
    entries: list[Entry] = []
    for found in list(await session.scalars(entered)):
        data = {"user": user}
        if await _often(session, found.id, said, now):
            entries.append(Told(found.id, "access", said, now))
        else:
            entries.append(
                note(session, found, "access", said, actor=actor.name, now=now, data=data)
            )
    return entries


async def _often(session: AsyncSession, reservation_id: str, said: str, now: datetime) -> bool:
    """Whether the history has just that already, or as many times as anybody reads."""
    line = HistoryRow
    count, last = (
        await session.execute(
            select(func.count(), func.max(line.at)).where(
                line.reservation_id == reservation_id, line.kind == "access", line.reason == said
            )
        )
    ).one()
    return count >= _LINES_MAX or (last is not None and now - last < _LINE_EVERY)


def _view(rows: Iterable[SshKeyRow]) -> SshKeys:
    return SshKeys(
        items=[
            SshKey(
                key=row.key,
                type=row.type,
                fingerprint=row.fingerprint,
                comment=row.comment,
                added_at=row.added_at,
            )
            for row in rows
        ]
    )

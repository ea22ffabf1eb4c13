"""Questions to the plan of a type: when could I have this, for how long could I keep it?

They change nothing, and are put to the world that is kept in memory. While a transaction has that
out, to plan with it, a question waits for its turn behind it: to read and seat everybody anew takes
a thousand times as long, and with every panel that looks at its lease nobody would get on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service import planner
from gpudev_service.context import Context
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.memory import Turn

from . import facts, kept, promises
from .kept import Kept

T = TypeVar("T")

#: In the `info` of a session that has to do without what is kept.
_ALONE = "gpudev_alone"


class _Busy(Exception):  # noqa: N818 - says what is the matter
    """The plan is kept, and somebody is about to change it, or has since this reader began."""


@dataclass(frozen=True, slots=True)
class Present:
    """A type's world, and who waits and who holds what in it. It lives on, and must be asked before
    the next await."""

    world: planner.World
    nodes: Collection[planner.Node]
    holds: Collection[planner.Hold]
    demands: Collection[planner.Demand]


async def ask(ctx: Context, question: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `question` returns, which calls `present` and changes nothing. It may be called again.

    Raises:
        StoreUnavailable: nothing can be read.
    """
    with suppress(_Busy):
        return await _reading(ctx, question)
    # One at a time stands in the line of those who write. The next may find what it left behind.
    async with ctx.questions:
        with suppress(_Busy):
            return await _reading(ctx, question)
        with suppress(StoreUnavailable):  # nobody can write just now, this replica may not
            return await ctx.store.run(question, attempts=1)
    async with ctx.store.reading() as session:
        session.info[_ALONE] = True
        return await question(session)


async def _reading(ctx: Context, question: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async with ctx.store.reading() as session:
        return await question(session)


async def present(ctx: Context, session: AsyncSession, now: datetime, gpu_type: str) -> Present:
    """How things are now, for questions: in a transaction of `ask`, or one that writes."""
    turn: Turn[Kept] | None = Turn.within(session)
    known: Kept | None = None
    if turn is not None:
        known = await _taken(ctx, session, turn, now, gpu_type)
    elif _ALONE not in session.info:
        known = await _found(ctx, session, now, gpu_type)
    if known is None:
        current = await facts.world(ctx, session, now, [gpu_type])
        known, agrees = kept.to_ask(ctx, current, facts.to_ms(now))
        if agrees and turn is not None:
            turn.give_back(gpu_type, known)
        elif agrees:
            await ctx.store.memory.keep(session, gpu_type, known)
    return Present(known.live, known.nodes, known.holds.values(), known.demands.values())


async def _found(ctx: Context, session: AsyncSession, now: datetime, gpu_type: str) -> Kept | None:
    """What is kept, brought to `now`, as a reader finds it; None where it has to be made anew.

    Raises:
        _Busy: it will be there again in a moment.
    """
    memory = ctx.store.memory
    look = await memory.look(session, gpu_type)
    if look is None:
        if memory.is_there(gpu_type):
            raise _Busy
        return None
    if len(look.stale) > promises.AT_ONCE:
        return None
    news = await facts.world(ctx, session, now, [gpu_type], only=look.stale)
    if not look.still:
        raise _Busy
    if not kept.as_of(look.kept, ctx, news, look.stale, facts.to_ms(now)):
        look.spoiled()
        return None
    look.renewed()
    known: Kept = look.kept
    return known


async def _taken(
    ctx: Context, session: AsyncSession, turn: Turn[Kept], now: datetime, gpu_type: str
) -> Kept | None:
    """The same in a transaction that may write: nobody else can have it out."""
    known, stale = await turn.take(gpu_type)
    if known is None or len(stale) > promises.AT_ONCE:
        return None
    news = await facts.world(ctx, session, now, [gpu_type], only=stale)
    if not kept.as_of(known, ctx, news, stale, facts.to_ms(now)):
        return None
    turn.give_back(gpu_type, known)
    return known

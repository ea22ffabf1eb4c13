"""Standing by until this replica may lead, and keeping the lead.

Where the database is PostgreSQL, any number of replicas may run. One leads, and is then all of
what a single service is; the others stand by with everything ready, and take the lead when it does
not live any more. A leader that was followed by another ends at once, with all that it has in
memory: it begins again as one that stands by.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from sqlalchemy import URL

from gpudev_client.models import LoopHealth

from .clock import Clock
from .store.errors import NotLeading, StoreUnavailable
from .store.lead import Lead, Leader

log = logging.getLogger(__name__)

#: Looks, and signs of life, in the time that a leader has.
_LOOKS, _SIGNS = 12, 6
#: The longest pause between two looks, in seconds.
_LONGEST = 0.5
#: The shortest one.
_AT_ONCE = 0.05


def lead_of(url: URL, address: str, seconds: float) -> Lead:
    """This replica's part; its name is where it runs, so that one that is started again there
    knows that the one before has ended."""
    return Lead(url, holder=f"{socket.gethostname()} {address}", address=address, seconds=seconds)


class Leading:
    """Follows who leads.

    Args:
        followed: called when this replica led and another one has followed; it ends the process.
    """

    def __init__(self, lead: Lead, followed: Callable[[], None]) -> None:
        self._lead, self._followed = lead, followed
        #: Who leads, as far as is known; None before the first look.
        self.leader: Leader | None = None
        #: Set once this replica leads.
        self.begun = asyncio.Event()
        self._changed = asyncio.Event()
        self._trouble: str | None = None

    @property
    def leads(self) -> bool:
        return self._lead.epoch is not None

    async def run(self) -> None:
        """Stands by until this replica leads; then gives signs of life, without end."""
        pause = min(_LONGEST, self._lead.seconds / _LOOKS)
        while True:
            if await self._tried():
                break
            # The one before at this place has ended; the database is about to notice it.
            await asyncio.sleep(_AT_ONCE if self._is_its_own_heir() else pause)
        self.begun.set()
        while True:
            await asyncio.sleep(self._lead.seconds / _SIGNS)
            await self._sign()

    async def _sign(self) -> None:
        try:
            await self._lead.renew()
        except NotLeading:
            pass
        except StoreUnavailable as error:
            self._troubled(error)
        else:
            self._well()
        if self._lead.lost:
            log.error("another replica leads now; this one ends and begins again")
            self._followed()

    @property
    def address(self) -> str | None:
        """Where the leader is asked; None while nobody is known who answers."""
        leader = self.leader
        if leader is None or not leader.good or not leader.address:
            return None
        return None if self._is_its_own_heir() else leader.address

    def _is_its_own_heir(self) -> bool:
        """Whether the process before this one, at the same place, is the last that led."""
        leader = self.leader
        return leader is not None and leader.holder == self._lead.holder and not self.leads

    async def changed(self, seconds: float) -> None:
        """Waits until somebody else leads, at most `seconds`."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return

    def health(self, clock: Clock) -> LoopHealth:
        """Whether the database is heard by the connection that leads or stands by."""
        return LoopHealth(
            name="lead",
            last_run_at=clock.now(),
            ok=self._trouble is None,
            message=self._trouble,
        )

    async def _tried(self) -> bool:
        try:
            taken = await self._lead.take()
            self._saw(await self._lead.look())
        except StoreUnavailable as error:
            self._troubled(error)
            return self.leads
        self._well()
        return taken

    def _saw(self, leader: Leader) -> None:
        before, self.leader = self.leader, leader
        if before is not None and before.epoch == leader.epoch:
            return
        if self.leads:
            log.warning("leads now, in epoch %d", leader.epoch)
        else:
            log.info("stands by; %s leads in epoch %d", leader.holder or "nobody", leader.epoch)
        rung, self._changed = self._changed, asyncio.Event()
        rung.set()

    def _troubled(self, error: StoreUnavailable) -> None:
        if self._trouble is None:
            log.warning("no sign of life can be given or seen: %s", error)
        self._trouble = str(error)

    def _well(self) -> None:
        if self._trouble is not None:
            log.info("the database answers again")
        self._trouble = None

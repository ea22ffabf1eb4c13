"""For admins: everybody's reservations, drains of nodes, maintenance of types."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from pydantic import Field

from gpudev_client import limits, words
from gpudev_client.models import DrainRequest, MaintenanceRequest
from gpudev_client.states import LIVE, State
from gpudev_service.api import access, capacity, cluster, reservations
from gpudev_service.api.route import Access, PageQuery
from gpudev_service.errors import Refusal, not_found

from . import cards
from . import fleet_views as views
from .base import Done
from .fleet import FleetPage
from .forms import Forms

_PER_PAGE = 25
#: `?state=` for all that is not over, and for everything.
LIVE_WORD, ALL_WORD = "live", "all"


class AdminQuery(PageQuery):
    """What the list of reservations is narrowed to, and the first node that is shown."""

    user: str | None = Field(default=None, max_length=255)
    state: str = Field(default=LIVE_WORD, max_length=20)
    gpu_type: str | None = Field(default=None, max_length=63)
    first: int = Field(default=0, ge=0, le=1_000_000)

    def states(self) -> list[State]:
        if self.state == LIVE_WORD:
            return sorted(LIVE)
        if self.state == ALL_WORD:
            return []
        if self.state not in set(State):
            raise Refusal("invalid_input", "There is no such state.", field="state")
        return [State(self.state)]


class Admin(FleetPage):
    """Everybody's reservations, the nodes and the types."""

    tab = "admin"

    async def enter(self) -> None:
        """Nothing here is for anybody else, not even how a form answers."""
        await super().enter()
        if self._finished:
            return
        try:
            access.check_caller(Access.ADMIN, self.caller)
        except Refusal as refusal:
            raise Refusal(refusal.code, "This page is for admins of gpudev.") from None

    async def get(self) -> None:
        await self.page(Forms())

    async def page(self, forms: Forms) -> None:
        query = self.read_query(AdminQuery)
        asked = reservations.ListQuery(
            user=query.user or reservations.EVERYBODY,
            state=query.states(),
            gpu_type=query.gpu_type,
            limit=_PER_PAGE,
            cursor=query.cursor,
        )
        found = await reservations.listing(self.call(query=asked))
        types = await self.types()
        cluster = await self.cluster(query.first)
        given = {"user": query.user, "state": query.state, "gpu_type": query.gpu_type}
        self.show(
            "admin.html",
            cards=[cards.card(view, self.caller.name, can_change=True) for view in found.items],
            query=query,
            states=[LIVE_WORD, ALL_WORD, *State],
            types=types,
            nodes=views.node_rows(cluster.nodes, types),
            unseen=None if cluster.fresh else words.unseen(cluster.trouble),
            more=self.addresses.page("admin", **given, cursor=found.next_cursor)
            if found.next_cursor
            else None,
            more_nodes=self.more_nodes("admin", cluster),
            forms=forms,
        )

    async def act(self, form: str, key: str, work: Callable[[], Awaitable[str]]) -> None:
        """Does what a form of this page asks for and comes back to it."""

        async def done() -> Done:
            return Done(await work(), self.addresses.page("admin"))

        try:
            await self.submit(done)
        except Refusal as refusal:
            await self.page(self.refused(form, refusal, key))


class _NodeAction(Admin):
    async def get(self, node: str) -> None:  # type: ignore[override]
        """A reload after a refusal."""
        self.go_to(self.addresses.page("admin"))

    def checked(self, node: str) -> str:
        if re.fullmatch(limits.NODE_NAME, node) is None:
            raise not_found("node")
        return node


class Drain(_NodeAction):
    async def sent(self, node: str) -> None:
        path = {"node": self.checked(node)}

        async def work() -> str:
            await cluster.drain(self.call(path=path, body=self.read_form(DrainRequest)))
            return (
                f"{node} is drained: running leases go on to their end, nothing new starts there."
            )

        await self.act("drain", node, work)


class Undrain(_NodeAction):
    async def sent(self, node: str) -> None:
        path = {"node": self.checked(node)}

        async def work() -> str:
            await cluster.undrain(self.call(path=path))
            return f"{node} is used again."

        await self.act("undrain", node, work)


class _TypeAction(Admin):
    async def get(self, name: str) -> None:  # type: ignore[override]
        """A reload after a refusal."""
        self.go_to(self.addresses.page("admin"))

    def checked(self, name: str) -> str:
        if re.fullmatch(limits.TYPE_NAME, name) is None:
            raise not_found("GPU type")
        return name


class BeginMaintenance(_TypeAction):
    async def sent(self, name: str) -> None:
        path = {"name": self.checked(name)}

        async def work() -> str:
            body = self.read_form(MaintenanceRequest)
            await capacity.set_maintenance(self.call(path=path, body=body))
            return f"{name} takes no new reservations."

        await self.act("maintenance", name, work)


class EndMaintenance(_TypeAction):
    async def sent(self, name: str) -> None:
        path = {"name": self.checked(name)}

        async def work() -> str:
            await capacity.end_maintenance(self.call(path=path))
            return f"{name} takes reservations again."

        await self.act("end", name, work)

"""My reservations, one reservation with its history, extending and ending it."""

from __future__ import annotations

from gpudev_client import limits, words
from gpudev_client.models import ExtensionRequest, Reservation
from gpudev_client.states import FINAL, LIVE, State
from gpudev_service.api import access, use
from gpudev_service.api import reservations as api
from gpudev_service.api.permissions import Right
from gpudev_service.api.route import Access, PageQuery
from gpudev_service.errors import Refusal, not_found
from gpudev_service.events import Owner

from . import cards
from . import people_views as people
from .base import Done, PageHandler
from .forms import Forms

#: Most live reservations that are shown as cards; whoever has more finds the rest by paging.
_LIVE_MAX = 50
_PAST = 10


class MineQuery(PageQuery):
    """`cursor` pages through past reservations, `live` through those that are not over."""

    live: str | None = None


class ReservationPage(PageHandler):
    """Base of pages about one reservation."""

    tab = "reservations"

    async def owner_of(self, key: str, needed: Access) -> Owner:
        """Whose it is; somebody else's is not there."""
        if not limits.is_reservation_id(key):
            raise not_found("reservation")
        return await access.reservation_owner(self.service.ctx, needed, self.caller, key)

    def may_change(self, owner: Owner) -> bool:
        return self.caller.grants.may(Right.WRITE, owner)

    async def view(self, key: str, owner: Owner) -> Reservation:
        return await api.show(self.call(path={"id": key}, owner=owner))


class Mine(ReservationPage):
    """The viewer's own reservations: those that are not over, then past ones page by page."""

    async def get(self) -> None:
        query = self.read_query(MineQuery)
        live = await api.listing(self.call(query=_part(LIVE, limit=_LIVE_MAX, cursor=query.live)))
        past = await api.listing(self.call(query=_part(FINAL, limit=_PAST, cursor=query.cursor)))
        self.show(
            "reservations.html",
            live=[await self._card(view) for view in live.items],
            past=[self._past(view) for view in past.items],
            more_live=self._more(live=live.next_cursor),
            more_past=self._more(cursor=past.next_cursor),
            paging=bool(query.cursor),
        )

    async def _card(self, view: Reservation) -> cards.Card:
        # A list tells neither how far a lease could be extended nor what happened to its server.
        if view.state in {State.PREPARING, State.ACTIVE}:
            view = await api.show(self.call(path={"id": view.id}))
        return self._past(view)

    def _past(self, view: Reservation) -> cards.Card:
        # What is shared has other owners, whose groups the list does not tell.
        groups = self.caller.groups if view.user == self.caller.name else ()
        owner = Owner(view.user, groups, view.server_name)
        return cards.card(view, self.caller.name, can_change=self.may_change(owner))

    def _more(self, **cursor: str | None) -> str | None:
        name, value = next(iter(cursor.items()))
        return self.addresses.page(**{name: value}) if value else None


class OneCard(ReservationPage):
    """A card by itself, for the script that replaces one on the page."""

    fragment = True

    async def get(self, key: str) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_READ)
        view = await self.view(key, owner)
        self.show(
            "card.html", card=cards.card(view, self.caller.name, can_change=self.may_change(owner))
        )


class Details(ReservationPage):
    """Everything about one reservation, with its history."""

    async def get(self, key: str) -> None:
        await self.page(key, Forms())

    async def page(self, key: str, forms: Forms) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_READ)
        query = self.read_query(PageQuery)
        view = await self.view(key, owner)
        history = await api.history(self.call(path={"id": key}, query=query, owner=owner))
        following = history.next_cursor
        can_change = self.may_change(owner)
        self.show(
            "reservation.html",
            card=cards.card(view, self.caller.name, can_change=can_change),
            idle=view.idle,
            people=people.shown(view, self.caller.name, can_change=can_change),
            can_invite=people.can_invite(view, can_change=can_change),
            ends=people.ends(view, self.service.ctx.clock.now()),
            facts=cards.facts(view),
            history=history.items,
            more=self.addresses.page("reservations", key, cursor=following) if following else None,
            mine=owner.user == self.caller.name,
            forms=forms,
        )


class Extend(Details):
    """Extends a lease; refused amounts come back with what would be possible."""

    async def get(self, key: str) -> None:
        """A reload after a refusal: the page itself."""
        self.go_to(self.addresses.reservation(key))

    async def sent(self, key: str) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_WRITE)

        async def work() -> Done:
            body = self.read_form(ExtensionRequest)
            await api.extend(self.call(path={"id": key}, body=body, owner=owner))
            return Done(f"Extended by {words.hours(body.hours)}.", self.addresses.reservation(key))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(key, self.refused("extend", refusal))


class Keep(Details):
    """Keeps a lease that looks idle."""

    async def get(self, key: str) -> None:
        """A reload after a refusal: the page itself."""
        self.go_to(self.addresses.reservation(key))

    async def sent(self, key: str) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_WRITE)

        async def work() -> Done:
            await use.keep(self.call(path={"id": key}, owner=owner))
            return Done("The lease is kept.", self.addresses.reservation(key))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(key, self.refused("keep", refusal))


class Cancel(ReservationPage):
    """Asks once more, then ends a reservation."""

    async def get(self, key: str) -> None:
        await self.page(key, Forms())

    async def page(self, key: str, forms: Forms) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_WRITE)
        view = await self.view(key, owner)
        self.show(
            "cancel.html",
            card=cards.card(view, self.caller.name, can_change=True),
            view=view,
            forms=forms,
        )

    async def sent(self, key: str) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_WRITE)

        async def work() -> Done:
            query = self.read_form(api.CancelQuery)
            view = await api.cancel(self.call(path={"id": key}, query=query, owner=owner))
            return Done(_ended(view), self.addresses.reservation(key))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(key, self.refused("cancel", refusal))


def _ended(view: Reservation) -> str:
    if view.state is State.STOPPING:
        return f"{view.name} is being ended."
    return f"{view.name} is {view.state}."


def _part(states: frozenset[State], *, limit: int, cursor: str | None) -> api.ListQuery:
    return api.ListQuery(state=sorted(states), limit=limit, cursor=cursor)

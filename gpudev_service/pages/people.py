"""Collaborators on a reservation's page: inviting, removing, leaving."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from gpudev_client.models import CollaboratorRequest, Request, Role
from gpudev_service.api import access
from gpudev_service.api import sharing as api
from gpudev_service.api.route import Access, well_formed
from gpudev_service.errors import Refusal
from gpudev_service.operations import sharing

from .base import Done
from .reservations import Details


class Invitation(Request):
    """What stands in the form."""

    user: str = Field(min_length=1, max_length=255)
    role: Role = "use"
    #: Hours from now; empty for as long as the lease. A moment could only be typed in a time zone,
    #: and without JavaScript nobody knows which.
    until: Literal["", "1", "4", "24"] = ""


class Chosen(Request):
    """Whose button was pressed."""

    user: str = Field(min_length=1, max_length=255)


class Invite(Details):
    """Invites somebody; a name that the Hub does not know comes back in the form."""

    async def get(self, key: str) -> None:
        self.go_to(self.addresses.reservation(key))

    async def sent(self, key: str) -> None:
        owner = await self.owner_of(key, Access.RESERVATION_WRITE)

        async def work() -> Done:
            asked = self.read_form(Invitation)
            user = asked.user.strip()
            if not well_formed({"user": user}):
                raise Refusal("invalid_input", "The Hub has no user of that name.", field="user")
            now = self.service.ctx.clock.now()
            until = now + timedelta(hours=int(asked.until)) if asked.until else None
            body = CollaboratorRequest(role=asked.role, until=until)
            await api.invite(self.call(path={"id": key, "user": user}, body=body, owner=owner))
            return Done(f"{user} is invited.", self.addresses.reservation(key))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(key, self.refused("invite", refusal))


class Remove(Details):
    """Takes an invitation back, or leaves a reservation that somebody shares."""

    async def get(self, key: str) -> None:
        self.go_to(self.addresses.reservation(key))

    async def sent(self, key: str) -> None:
        chosen = self.read_form(Chosen).user
        owner = await access.reservation_owner(
            self.service.ctx, Access.LEAVE, self.caller, key, chosen
        )
        me = chosen == self.caller.name

        async def work() -> Done:
            call = self.call(path={"id": key, "user": chosen}, owner=owner)
            await sharing.remove(call.ctx, key, chosen, call.actor)
            if me:
                return Done("You have left the reservation.", self.addresses.home)
            return Done(f"{chosen} is not invited any more.", self.addresses.reservation(key))

        await self.submit(work)

"""SSH keys: the list, adding by pasting, removing."""

from __future__ import annotations

from pydantic import Field

from gpudev_client import limits
from gpudev_client.models import Request
from gpudev_service.api import access
from gpudev_service.api.route import Access
from gpudev_service.errors import Refusal
from gpudev_service.operations import keys

from .base import Done, PageHandler
from .forms import Form, Forms


class Pasted(Request):
    """What stands in the text field: one key per line."""

    keys: str = Field(min_length=1, max_length=limits.BODY_MAX)


class Removed(Request):
    """The key whose button was pressed."""

    fingerprint: str = Field(min_length=1, max_length=limits.SSH_FINGERPRINT_MAX)


class Keys(PageHandler):
    """The viewer's own public keys."""

    tab = "keys"

    async def get(self) -> None:
        await self.page(Forms())

    async def page(self, forms: Forms) -> None:
        access.same_person(Access.PERSON_READ, self.caller, self.caller.name)
        found = await keys.listing(self.service.ctx, self.caller.name)
        self.show("ssh-keys.html", keys=found.items, can_change=self._may_change(), forms=forms)

    def _may_change(self) -> bool:
        try:
            access.same_person(Access.PERSON_WRITE, self.caller, self.caller.name)
        except Refusal:
            return False
        return True

    async def sent(self) -> None:
        """Adds what was pasted."""
        access.same_person(Access.PERSON_WRITE, self.caller, self.caller.name)

        async def work() -> Done:
            lines = _lines(self.read_form(Pasted).keys)
            call = self.call()
            await keys.add(call.ctx, self.caller.name, lines, call.actor)
            what = "The key opens" if len(lines) == 1 else f"{len(lines)} keys open"
            return Done(f"{what} the servers that you may use.", self.addresses.page("ssh-keys"))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(self._form_again(refusal))

    def _form_again(self, refusal: Refusal) -> Forms:
        """The form again. A private key that was pasted by mistake does not come back in it."""
        at_field = (refusal.field or "").startswith("keys")
        shown = Refusal(refusal.code, refusal.message, field="keys" if at_field else refusal.field)
        forms = self.refused("add", shown)
        if "PRIVATE KEY" in forms.sent.value("keys"):
            return Forms(Form("add", error=shown))
        return forms


class Remove(Keys):
    """Removes one key."""

    async def get(self) -> None:
        self.go_to(self.addresses.page("ssh-keys"))

    async def sent(self) -> None:
        access.same_person(Access.PERSON_WRITE, self.caller, self.caller.name)

        async def work() -> Done:
            call = self.call()
            chosen = self.read_form(Removed).fingerprint
            await keys.remove(call.ctx, self.caller.name, chosen, call.actor)
            return Done("The key is removed.", self.addresses.page("ssh-keys"))

        try:
            await self.submit(work)
        except Refusal as refusal:
            await self.page(self.refused("remove", refusal))


def _lines(text: str) -> list[str]:
    """The keys of a text; a private key as a whole, so that it is refused as what it is."""
    if "PRIVATE KEY" in text:
        return [text]
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]

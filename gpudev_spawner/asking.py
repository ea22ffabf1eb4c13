"""From what somebody filled into the form, or put into a link, to `user_options`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpudev_client import errors

from . import form, options, stash
from .refusals import PrefillOnly, SpawnRefused, refused

if TYPE_CHECKING:
    from .mixin import GpuDevMixin


async def read(spawner: GpuDevMixin, form_data: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The form as `user_options`.

    The service is asked for a plan, so that most of what it would refuse is said at once, in the
    form, at the field and with everything still there that was typed.

    Raises:
        SpawnRefused: what is wrong, for the Hub to show above the form.
    """
    values = options.form_values(form_data)
    stash.drop(spawner.user)
    try:
        asked = options.from_form(values)
        if isinstance(asked, options.Attach):
            return {options.ATTACH: asked.reservation}
        await spawner.connection.client.plan(spawner.request_for(asked))
    except options.InvalidOptions as error:
        raise _back(spawner, values, SpawnRefused(error.message, field=error.field)) from error
    except errors.GpuDevError as error:
        raise _back(spawner, values, refused(error)) from error
    # Should the reservation be refused after all, the form comes back as it was filled.
    stash.keep(spawner.user, stash.Stash(spawner.name, values))
    return options.stored(asked)


def fill(spawner: GpuDevMixin, query: Mapping[str, Sequence[str]]) -> PrefillOnly:
    """Keeps a link's arguments for the form that follows."""
    values = options.prefill(query, form.PRESETS)
    stash.keep(spawner.user, stash.Stash(spawner.name, values))
    return PrefillOnly()


def _back(spawner: GpuDevMixin, values: options.FormValues, refusal: SpawnRefused) -> SpawnRefused:
    faults = {refusal.field: refusal.message} if refusal.field else {}
    stash.keep(spawner.user, stash.Stash(spawner.name, values, faults))
    return refusal

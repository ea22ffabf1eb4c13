"""From what somebody filled into the form, or put into a link, to `user_options`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpudev_client import errors, limits
from gpudev_client.models import ReservationRequest

from . import form, names, options, rows, stash
from .refusals import PrefillOnly, SpawnRefused, refused

if TYPE_CHECKING:
    from .mixin import GpuDevMixin


def parsed(spawner: GpuDevMixin, user_options: Mapping[str, Any]) -> options.Asked:
    """What a start is asked for; a server that is refused leaves no row in the Hub.

    Raises:
        SpawnRefused: options that say nothing that can be done, or a name that the Hub would mix up
            with another server's.
    """
    try:
        names.check(spawner.user.db, spawner.user.name, spawner.name)
        return options.parse(user_options)
    except options.InvalidOptions as error:
        rows.forget_refused(spawner)
        raise SpawnRefused(error.message, field=error.field) from error
    except SpawnRefused:
        rows.forget_refused(spawner)
        raise


def request_for(spawner: GpuDevMixin, asked: ReservationRequest) -> ReservationRequest:
    """What is asked for, as this server's; the service need not ask for the groups."""
    groups = [group.name for group in spawner.user.groups]
    told = groups if len(groups) <= limits.OWNER_GROUPS_MAX else None
    own = {"user": spawner.user.name, "server_name": spawner.name, "owner_groups": told}
    return asked.model_copy(update=own)


async def read(spawner: GpuDevMixin, form_data: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The form as `user_options`.

    The service is asked for a plan, so that most of what it would refuse is said at once, in the
    form, at every field and with everything still there that was typed.

    Raises:
        SpawnRefused: what is wrong, for the form or, where it concerns no field, for above it.
    """
    values = options.submitted(form_data, form.PRESETS)
    stash.drop(spawner.user)
    try:
        asked = options.from_form(values)
        if isinstance(asked, options.Attach):
            return {options.ATTACH: asked.reservation}
        await spawner.connection.client.plan(request_for(spawner, asked))
    except options.InvalidOptions as error:
        faults = await _all_faults(spawner, values, error.faults)
        raise _back(spawner, values, faults, SpawnRefused(error.message)) from error
    except errors.GpuDevError as error:
        refusal = refused(error)
        faults = {refusal.field: refusal.message} if refusal.field else {}
        faults = await _all_faults(spawner, values, faults)
        raise _back(spawner, values, faults, refusal) from error
    # Should the reservation be refused after all, the form comes back as it was filled.
    stash.keep(spawner.user, stash.Stash(spawner.name, values))
    return options.stored(asked)


async def _all_faults(
    spawner: GpuDevMixin, values: options.FormValues, faults: Mapping[str, str]
) -> dict[str, str]:
    """`faults` and what else the service would refuse. It names one field at a time, so it is asked
    again with the ones that are known put right; how often is bounded by the number of fields."""
    found, client = dict(faults), spawner.connection.client
    if not found:
        return found
    try:
        types = await client.gpu_types(spawner.user.name).all()
        named = [kind for kind in types if kind.name == values.gpu_type]
        for kind in (named or types)[:1]:
            asked = options.request_from_form(options.mended(values, found, kind))
            await client.plan(request_for(spawner, asked))
    except errors.RefusalError as error:
        if error.field in options.FIELDS and error.field not in found:
            found[error.field] = error.message
            return await _all_faults(spawner, values, found)
    except (errors.GpuDevError, options.InvalidOptions) as error:
        spawner.log.debug("the rest of the form was not looked at: %s", error)
    return found


def fill(spawner: GpuDevMixin, query: Mapping[str, Sequence[str]]) -> PrefillOnly:
    """Keeps a link's arguments for the form that follows."""
    values = options.prefill(query, form.PRESETS)
    stash.keep(spawner.user, stash.Stash(spawner.name, values))
    return PrefillOnly()


def _back(
    spawner: GpuDevMixin,
    values: options.FormValues,
    faults: Mapping[str, str],
    refusal: SpawnRefused,
) -> SpawnRefused:
    stash.keep(spawner.user, stash.Stash(spawner.name, values, faults))
    # The form comes back in this answer; it needs no row to be sent again.
    spawner.connection.later(rows.forget(spawner))
    return refusal

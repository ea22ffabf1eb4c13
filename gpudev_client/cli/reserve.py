"""`gpu-dev reserve`: from flags and answers to a reservation, and waiting for it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import click

from gpudev_client import interrupts, limits, words

from . import say, verbs, wait
from .app import App, Refused, pass_app
from .ask import ask, choose
from .show import emit_json, note

if TYPE_CHECKING:
    from gpudev_client import models

_NO_DISK = "none"
_NEW_DISK = "new"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the flags say; None is open. `disk` may be "none"."""

    gpu_type: str | None
    gpus: int | None
    hours: float | None
    name: str | None
    disk: str | None
    create_disk: bool
    image: str | None = None
    node_labels: dict[str, str] | None = None

    @property
    def complete(self) -> bool:
        return None not in (self.gpu_type, self.gpus, self.hours)


def wishes(hours: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say what is wanted; the verb gets them as one argument, `wish`.

    Args:
        hours: what --hours means to this verb.
    """
    options = (
        click.option(
            "-t", "--gpu-type", metavar="TYPE", help="GPU type; `gpu-dev avail` lists them."
        ),
        click.option("-g", "--gpus", type=click.IntRange(0), metavar="N", help="How many GPUs."),
        click.option("-h", "--hours", type=float, callback=_checked, metavar="HOURS", help=hours),
        click.option("-n", "--name", metavar="NAME", help="Your own name for it."),
        click.option(
            "--disk", metavar="NAME|none", help="The disk that becomes the home directory."
        ),
        click.option(
            "--create-disk", is_flag=True, help="Create the disk if there is none of this name."
        ),
        click.option(
            "--image", metavar="IMAGE", help="A container image of your own, if policy allows."
        ),
        click.option(
            "-l",
            "--node-label",
            "node_labels",
            multiple=True,
            callback=_labels,
            metavar="KEY=VALUE",
            help="Only nodes that have this label; repeatable.",
        ),
    )

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def with_wish(*arguments: Any, **given: Any) -> None:
            wish = Wish(**{field.name: given.pop(field.name) for field in fields(Wish)})
            verb(*arguments, wish=wish, **given)

        for option in reversed(options):
            with_wish = option(with_wish)
        return with_wish

    return decorate


def _checked(ctx: click.Context, option: click.Parameter, hours: float | None) -> float | None:
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise click.UsageError("--hours takes a number above 0, such as 0.5 or 4.", ctx)
    return hours


def _labels(
    ctx: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(limits.LABEL_KEY, key):
            raise click.UsageError(
                "--node-label takes KEY=VALUE, such as topology.kubernetes.io/zone=eu-1a.", ctx
            )
        if not re.fullmatch(limits.LABEL_VALUE, value):
            raise click.UsageError(f"--node-label: a label has no such value as {value!r}.", ctx)
        if found.get(key, value) != value:
            raise click.UsageError(
                f"--node-label: no node has {key}={found[key]} and {key}={value}; say one.", ctx
            )
        found[key] = value
    return found or None


@click.command()
@wishes("For how long; 0.5 is 30 minutes.")
@click.option("--no-interactive", is_flag=True, help="Ask nothing; take defaults for what is open.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is active.")
@verbs.yes
@verbs.as_json
@pass_app
def reserve(
    app: App,
    wish: Wish,
    no_interactive: bool,
    no_wait: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Reserve GPUs.

    On a terminal it asks for what is missing. Without one, the type is needed, and count and hours
    are the type's smallest count and usual length. Here -h is --hours; for this text use --help.
    """
    asks = app.interactive(no_interactive)
    if asks and not wish.complete:
        wanted = request(_asked(app, wish))
        plan = app.client.plan(wanted)
        note(say.plan(plan, app.now(), app.zone), app.error_width)
        if not yes and not click.confirm("Reserve?", default=True, err=True):
            raise Refused("Nothing was reserved.")
    else:
        wanted = request(complete(app, wish))
    made = app.client.reserve(wanted)
    announce(app, made)
    if not no_wait:
        made = wait.until_active(app, made, may_ask=asks)
    if as_json:
        emit_json(made)
    else:
        wait.result(app, made)


def request(wish: Wish) -> models.ReservationRequest:
    """What is asked of the service."""
    with interrupts.held():
        from gpudev_client.sdk import request_for

        return request_for(
            gpu_type=wish.gpu_type,
            gpus=wish.gpus,
            hours=wish.hours,
            name=wish.name,
            disk=None if wish.disk in (None, _NO_DISK) else wish.disk,
            create_disk=wish.create_disk and wish.disk not in (None, _NO_DISK),
            image=wish.image,
            node_labels=wish.node_labels,
        )


def announce(app: App, made: models.Reservation) -> None:
    """Says what was reserved."""
    length = words.hours(made.hours)
    note(f"Reservation {made.id} ({made.name}): {say.gpus(made)} for {length}.", app.error_width)
    if made.disk is None:
        note("It has no disk: files in it are gone at its end.", app.error_width)


def complete(app: App, wish: Wish) -> Wish:
    """`wish` with defaults for what is open and must not be asked."""
    if wish.gpu_type is None:
        known = ", ".join(t.name for t in app.client.gpu_types())
        raise click.UsageError(f"Say which GPU type with -t. There are: {known}.")
    if wish.hours is None:
        wish = replace(wish, hours=_type(app.client.gpu_types().all(), wish.gpu_type).default_hours)
    return wish


def _type(types: list[models.GpuType], name: str) -> models.GpuType:
    for known in types:
        if known.name == name:
            return known
    told = ", ".join(known.name for known in types)
    raise Refused(f"There is no GPU type {name!r}. There are: {told}.")


def _asked(app: App, wish: Wish) -> Wish:
    types = app.client.gpu_types().all()
    if not types:
        raise Refused("There is no GPU type that you may use.")
    if wish.gpu_type is None:
        wish = replace(wish, gpu_type=_ask_type(app, types))
    gpu_type = _type(types, wish.gpu_type or "")
    if gpu_type.maintenance:
        raise Refused(f"{gpu_type.name} is in maintenance: {gpu_type.maintenance}")
    if wish.gpus is None:
        wish = replace(wish, gpus=_ask_count(gpu_type))
    if wish.hours is None:
        wish = replace(wish, hours=_ask_hours(gpu_type))
    if wish.disk is None:
        wish = _ask_disk(app, wish)
    if wish.name is None:
        name = ask("Name (empty for one that is made up)", str.strip, "")
        wish = replace(wish, name=name or None)
    return wish


def _ask_type(app: App, types: list[models.GpuType]) -> str:
    now = app.now()
    offers = {a.gpu_type: a for a in app.client.availability()}

    def explained(t: models.GpuType) -> str:
        offer = offers.get(t.name)
        if offer is None:
            return t.label
        first = next((e for e in offer.earliest if e.starts_at), None)
        start = say.start_of(first, now, app.zone) if first else "not possible"
        simulated = ", simulated" if t.simulated else ""
        return f"{t.label}: {offer.free} of {offer.total} free, earliest start {start}{simulated}"

    usable = [t for t in types if not t.maintenance]
    for closed in types:
        if closed.maintenance:
            note(f"{closed.name} is in maintenance: {closed.maintenance}", app.error_width)
    if not usable:
        raise Refused("Every GPU type is in maintenance.")
    note("GPU types:")
    return choose("GPU type", [(t.name, explained(t)) for t in usable], usable[0].name)


def _ask_count(gpu_type: models.GpuType) -> int:
    counts = gpu_type.counts
    if len(counts) == 1:
        return counts[0]
    told = ", ".join(str(count) for count in counts)

    def read(text: str) -> int:
        if text.strip() not in [str(count) for count in counts]:
            raise click.UsageError(f"Possible with {gpu_type.name}: {told}.")
        return int(text)

    return ask(f"How many GPUs ({told})", read, str(counts[0]))


def _ask_hours(gpu_type: models.GpuType) -> float:
    low, high = gpu_type.min_hours, gpu_type.max_hours

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Nobody types a twelfth exactly; the service compares whole seconds.
        if not low - 1e-4 <= value <= high:
            raise click.UsageError(
                f"Hours from {low:.3g} ({words.hours(low)}) to {high:g}; fractions are fine."
            )
        return value

    question = f"For how many hours ({low:.3g} to {high:g})"
    return ask(question, read, f"{gpu_type.default_hours:g}")


def _ask_disk(app: App, wish: Wish) -> Wish:
    now = app.now()
    choices = [(_NO_DISK, "files are gone at the end"), (_NEW_DISK, "a new, empty disk")]
    disks = app.client.disks().all()
    for d in disks:
        if d.in_use_by or d.busy:
            note(f"{d.name} is {d.busy or f'in use by {d.in_use_by}'}.", app.error_width)
            continue
        last = f"used {words.ago(d.last_used_at, now)}" if d.last_used_at else ""
        size = words.size(d.size_bytes)
        choices.append((d.name, ", ".join(part for part in (size, last) if part)))
    note("Disks:")
    free = [d for d in disks if not (d.in_use_by or d.busy)]
    newest = max(free, key=lambda d: d.last_used_at or d.created_at).name if free else _NO_DISK
    chosen = choose("Disk", choices, newest)
    if chosen != _NEW_DISK:
        return replace(wish, disk=chosen)
    return replace(wish, disk=ask("Name of the new disk", _disk_name), create_disk=True)


def _disk_name(text: str) -> str:
    if not re.fullmatch(limits.DISK_NAME, text) or text in (_NO_DISK, _NEW_DISK):
        raise click.UsageError(
            "Letters, digits, '.', '_' and '-', beginning with a letter or digit."
        )
    return text

"""What there is: `avail` for one who wants GPUs, `status` for one who wants to see the fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gpudev_client import interrupts, words

from . import say, verbs
from .app import App, pass_app
from .show import emit_json, out, table
from .watch import shown

if TYPE_CHECKING:
    from gpudev_client import models

#: Seconds between two looks of `avail --watch`.
_INTERVAL = 5.0


@click.command()
@click.option("-t", "--gpu-type", metavar="TYPE", help="Only this type.")
@click.option("-h", "--hours", type=float, metavar="HOURS", help="For a lease of this length.")
@click.option("--watch", is_flag=True, help="Keep looking; Ctrl-C ends it.")
@verbs.as_json
@pass_app
def avail(app: App, gpu_type: str | None, hours: float | None, watch: bool, as_json: bool) -> None:
    """Show what is free, and when how many GPUs could start."""
    found = app.client.availability(hours, gpu_type).all()
    if not watch:
        emit_json(found) if as_json else out(_availability(app, found))
        return
    if as_json:
        while True:
            emit_json(found, one_line=True)
            interrupts.pause(_INTERVAL)
            found = app.client.availability(hours, gpu_type).all()
    with shown(lambda: _availability(app, found)) as screen:
        while True:
            screen.update()
            interrupts.pause(_INTERVAL)
            found = app.client.availability(hours, gpu_type).all()


@click.command()
@verbs.as_json
@pass_app
def status(app: App, as_json: bool) -> None:
    """Show the fleet: nodes, what runs where, and who waits: the first of each type, and you."""
    cluster = app.client.cluster()
    if as_json:
        emit_json(cluster)
        return
    if not cluster.fresh:
        app.tell(f"{words.unseen(cluster.trouble)}\n")
    if cluster.simulated:
        app.tell("The GPUs here are simulated.\n")
    out(_nodes(app, cluster.nodes))
    lengths = Counter(cluster.queue_lengths)
    app.tell(f"\nQueue: {words.counted(lengths.total(), 'reservation')}")
    if cluster.queue:
        out(_queue(app, cluster.queue))
    for gpu_type, count in (lengths - Counter(e.gpu_type for e in cluster.queue)).items():
        app.tell(f"and {words.counted(count, 'more reservation')} for {gpu_type}")


def _availability(app: App, found: Sequence[models.Availability]) -> str:
    if not found:
        return "There is no GPU type that you may use."
    now = app.now()
    rows = [
        (
            a.gpu_type,
            f"{a.free} of {a.total}",
            str(a.queue_length),
            say.earliest(a.earliest, now, app.zone),
            _remarks(a),
        )
        for a in found
    ]
    return table(("TYPE", "FREE", "QUEUE", "EARLIEST START", "REMARKS"), rows, app.width)


def _remarks(a: models.Availability) -> str:
    return ", ".join(
        remark
        for remark in (
            f"in maintenance: {a.maintenance}" if a.maintenance else "",
            f"{a.drained} drained" if a.drained else "",
            _growth(a.added_within_minutes),
            "simulated" if a.simulated else "",
        )
        if remark
    )


def _growth(minutes: float | None) -> str:
    return "" if minutes is None else f"more nodes within {words.duration(60 * minutes)}"


def _nodes(app: App, nodes: Sequence[models.NodeView]) -> str:
    if not nodes:
        return "There are no nodes."
    now = app.now()
    rows = [
        (
            n.name,
            n.gpu_type,
            f"{n.free} of {n.units}",
            "; ".join(_uses(app, n)),
            f"drained: {n.reason}" if n.drained and n.reason else "drained" if n.drained else "",
            words.moment(max(u.until for u in n.held), now, app.zone) if n.held else "",
        )
        for n in nodes
    ]
    return table(("NODE", "TYPE", "FREE", "HELD BY", "REMARKS", "ALL FREE BY"), rows, app.width)


def _uses(app: App, node: models.NodeView) -> list[str]:
    """One holder of a node at a time: "you: 4 GPUs, until 18:40". Those whose reservation may not
    be seen are told apart by when they go."""
    together = Counter(
        ("you" if use.mine else use.user or "somebody", use.reservation, use.until)
        for use in node.held
    )
    now, noun = app.now(), "share" if node.shares else "GPU"
    return [
        f"{who}: {words.counted(count, noun)}, until {words.moment(until, now, app.zone)}"
        for (who, _, until), count in together.items()
    ]


def _queue(app: App, queue: Sequence[models.QueueEntry]) -> str:
    now = app.now()
    rows = [
        (
            str(e.position),
            words.gpus(e.gpus, e.gpu_type),
            words.hours(e.hours),
            "you" if e.mine else e.user or "",
            e.reservation or "",
            words.start_in_words(e.promised_start, now, app.zone),
        )
        for e in queue
    ]
    return table(("PLACE", "GPUS", "FOR", "USER", "ID", "START"), rows, app.width)

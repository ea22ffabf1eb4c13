"""The fleet: what runs where, and who waits."""

from __future__ import annotations

from pydantic import AwareDatetime

from .base import Answer, Note, Request


class UnitUse(Answer):
    """Who holds one GPU (or share). Names and ids only where the caller may see them."""

    unit: int
    until: AwareDatetime
    reservation: str | None = None
    user: str | None = None
    mine: bool = False


class NodeView(Answer):
    """A node and who holds what of it. `units` are its GPUs, or its shares where `shares` is set:
    on a node without GPUs."""

    name: str
    gpu_type: str
    units: int
    shares: bool = False
    free: int
    drained: bool = False
    reason: str | None = None
    simulated: bool = False
    held: list[UnitUse] = []


class QueueEntry(Answer):
    """One who waits. `user`, `reservation` and `name` only where the caller may see them."""

    position: int
    gpu_type: str
    gpus: int
    hours: float
    promised_start: AwareDatetime | None
    reservation: str | None = None
    user: str | None = None
    name: str | None = None
    mine: bool = False


class Cluster(Answer):
    """`queue` has the first of each GPU type, and as many of the caller's own behind them; how many
    wait for a type is in `queue_lengths`. `fresh` is False while the fleet cannot be seen: then
    nothing new starts, and `trouble` says why. There are more nodes while there is a
    `next_cursor`."""

    nodes: list[NodeView]
    queue: list[QueueEntry]
    queue_lengths: dict[str, int] = {}
    simulated: bool
    at: AwareDatetime
    fresh: bool = True
    trouble: str | None = None
    next_cursor: str | None = None


class DrainRequest(Request):
    reason: Note


class MaintenanceRequest(Request):
    message: Note

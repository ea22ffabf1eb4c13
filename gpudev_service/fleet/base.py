"""The seam between the service and whatever provides nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from gpudev_service.settings import GpuTypeSpec, NodeSpec

from .scaling import Coming


class FleetAway(Exception):  # noqa: N818 - a state of the world
    """Where nodes come from cannot be asked at the moment."""


@dataclass(frozen=True, slots=True)
class View:
    """Whether what the fleet says is current; from a view that is not, nothing new is placed.
    `trouble` says in words why it is not; `no_growth` why a node that is wanted cannot be asked
    for."""

    fresh: bool = True
    trouble: str | None = None
    no_growth: str | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a node that a server gets besides its GPUs."""

    cpus: float
    memory_bytes: int


class Fleet(Protocol):
    """A source of nodes. What it returns is a snapshot; a node that is `ready=False` keeps its
    leases and gets nothing new."""

    def nodes(self) -> Sequence[NodeSpec]:
        """All nodes, in the operator's order."""
        ...

    def types(self) -> Mapping[str, GpuTypeSpec]:
        """The GPU types by name; sources that look at hardware may add to the configured ones."""
        ...

    def view(self) -> View:
        """Whether the rest of what it says can be relied upon now."""
        ...

    def changes(self) -> AbstractContextManager[frozenset[str]]:
        """GPU types whose capacity has become another one; the block plans them anew. Where it
        raises, they will be named again."""
        ...

    async def refusals(self, needed: Mapping[str, int]) -> Mapping[str, str]:
        """Those of the nodes on which a server cannot be started now, with the reason in words:
        asked at the source itself, not seen in the view. `needed` are the units that each has to
        have: the server's own, and those of the leases that come before it there.

        Raises:
            FleetAway: it does not answer.
        """
        ...

    def coming(self, gpu_type: str, most: int) -> Sequence[Coming]:
        """Up to `most` nodes that could be added to a type when somebody needs them."""
        ...

    async def ask_for(self, wanted: Mapping[str, int]) -> None:
        """Sees to it that so many nodes of each type are being added, and no more. What is refused
        for one type stands in the view, and keeps no other type from its nodes.

        Raises:
            FleetAway: it does not answer.
        """
        ...

    def share(self, node: str, units: int, reservation_id: str) -> Share | None:
        """What goes with `units` units of a node for a reservation's server; None where servers
        take what they need."""
        ...


class Unchanging:
    """What a fleet says of itself that is known from the start and stays as it is."""

    _planned = False

    def types(self) -> Mapping[str, GpuTypeSpec]:
        raise NotImplementedError

    def view(self) -> View:
        return View()

    @contextmanager
    def changes(self) -> Iterator[frozenset[str]]:
        """Everything, once: whoever waits was promised a start by what was configured before."""
        yield frozenset(() if self._planned else self.types())
        self._planned = True

    async def refusals(self, needed: Mapping[str, int]) -> Mapping[str, str]:
        del needed
        return {}

    def coming(self, gpu_type: str, most: int) -> Sequence[Coming]:
        del gpu_type, most
        return ()

    async def ask_for(self, wanted: Mapping[str, int]) -> None:
        del wanted

    def share(self, node: str, units: int, reservation_id: str) -> Share | None:
        del node, units, reservation_id
        return None

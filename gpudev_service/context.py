"""What every operation and loop works with, put together once by the application."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from .background import Background
from .clock import Clock
from .contact import Contact, Starts
from .disks.base import DiskBackend
from .events import EventBus
from .fleet import Fleet, PlannerNodes
from .hub import Hub
from .labs import Labs
from .other_clocks import OtherClocks
from .servers import ServerBackend, SharedFolders
from .settings import Settings
from .store.engine import Store
from .together import Together
from .wake import Wake


@dataclass(slots=True)
class Context:
    """The service's parts. `wake` tells the loops that something changed which they may act on;
    `shared` is None where the pods of a reservation have no folder in common."""

    settings: Settings
    store: Store
    clock: Clock
    fleet: Fleet
    disks: DiskBackend
    servers: ServerBackend
    hub: Hub
    shared: SharedFolders | None = None
    events: EventBus = field(default_factory=EventBus)
    background: Background = field(default_factory=Background)
    wake: Wake = field(default_factory=Wake)
    contact: Contact = field(default_factory=Contact)
    starts: Starts = field(default_factory=Starts)
    labs: Labs = field(default_factory=Labs)
    other_clocks: OtherClocks = field(default_factory=OtherClocks)
    #: Requests that wait to be admitted and planned.
    submissions: Together[Any, Any] = field(default_factory=Together)
    #: Held by whoever waits to put a question to a plan.
    questions: asyncio.Lock = field(default_factory=asyncio.Lock)
    planner_nodes: PlannerNodes = field(default_factory=PlannerNodes)

"""What a laptop needs to use gpudev: REST models, the client and SDK, the `gpu-dev` command.

Belongs here: the models of the REST API (the one place where they stand), the states and limits
that every surface shares, the sync and async client, the SDK, the command line.
Never here: anything that needs JupyterHub, a database or a GPU, or that imports another gpudev
package. Every other package imports this one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import AsyncClient, AsyncListing, Client, Listing
    from ._transport import Timeouts
    from .errors import (
        ConfigError,
        Conflict,
        GpuDevError,
        InvalidInput,
        NotAllowed,
        NotAuthenticated,
        NotFound,
        RefusalError,
        RemoteError,
        ReservationEnded,
        ServerFault,
        TooManyRequests,
        Unreachable,
        WaitTimeout,
    )
    from .sdk import AsyncGpuDev, AsyncReservationHandle, GpuDev, ReservationHandle
    from .states import State

# Each public name once, with its home. They are imported when they are first used: `gpu-dev --help`
# and the service, which needs the models only, do not pay for httpx.
_HOMES = {
    "AsyncClient": "_client",
    "AsyncGpuDev": "sdk",
    "AsyncListing": "_client",
    "AsyncReservationHandle": "sdk",
    "Client": "_client",
    "ConfigError": "errors",
    "Conflict": "errors",
    "GpuDev": "sdk",
    "GpuDevError": "errors",
    "InvalidInput": "errors",
    "Listing": "_client",
    "NotAllowed": "errors",
    "NotAuthenticated": "errors",
    "NotFound": "errors",
    "RefusalError": "errors",
    "RemoteError": "errors",
    "ReservationEnded": "errors",
    "ReservationHandle": "sdk",
    "ServerFault": "errors",
    "State": "states",
    "Timeouts": "_transport",
    "TooManyRequests": "errors",
    "Unreachable": "errors",
    "WaitTimeout": "errors",
}

__all__ = [
    "AsyncClient",
    "AsyncGpuDev",
    "AsyncListing",
    "AsyncReservationHandle",
    "Client",
    "ConfigError",
    "Conflict",
    "GpuDev",
    "GpuDevError",
    "InvalidInput",
    "Listing",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "RefusalError",
    "RemoteError",
    "ReservationEnded",
    "ReservationHandle",
    "ServerFault",
    "State",
    "Timeouts",
    "TooManyRequests",
    "Unreachable",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return __all__

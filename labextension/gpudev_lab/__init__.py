"""Inside each single-user server: what its lease means, where people work.

In a notebook or a job: `gpudev_lab.lease()` is the lease as data, `gpudev_lab.widget()` shows it,
`gpudev_lab.before_end(callback, minutes=10)` and `async for ending in gpudev_lab.endings(30, 5)`
give word before it ends.

Belongs here: the Jupyter Server extension (the connection to the service, the panel's endpoints,
GPU figures, SSH, the end without loss) and what notebooks may use of it.
Never here: decisions about leases, which are the service's; an import of another gpudev package
than the client; anything heavy at import, since every server of every person loads this.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .notebook.ending import Ending, before_end, endings
    from .notebook.lease import NotOnALease, lease
    from .notebook.widget import widget

# What notebooks use, with its home; imported when it is first used.
_HOMES = {
    "Ending": "ending",
    "NotOnALease": "lease",
    "before_end": "ending",
    "endings": "ending",
    "lease": "lease",
    "widget": "widget",
}

__all__ = ["Ending", "NotOnALease", "before_end", "endings", "lease", "widget"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".notebook.{home}", __name__), name)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .app import LabExtension

    return [{"module": "gpudev_lab", "app": LabExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "gpudev-lab"}]

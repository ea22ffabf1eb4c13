"""Inside each single-user server: what its lease means, where people work.

Belongs here: the Jupyter Server extension (the connection to the service, the panel's endpoints,
GPU figures, SSH, the end without loss) and what notebooks may use of it.
Never here: decisions about leases, which are the service's; an import of another gpudev package
than the client; anything heavy at import, since every server of every person loads this.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .app import LabExtension

    return [{"module": "gpudev_lab", "app": LabExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "gpudev-lab"}]

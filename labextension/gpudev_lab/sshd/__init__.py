"""SSH into the server, through the Hub's proxy: OpenSSH's sshd, one for each connection.

Belongs here: the WebSocket at `gpudev/ssh`, the entry for jupyter-server-proxy at `sshd/`, the host
key, what sshd is started with, who is connected and who must not be any more.
Never here: a port that is open; a decision about who may come in, which the service makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .endpoint import Host
    from .types import Link


def setup(serverapp: Any, link: Link) -> Host:
    """Adds SSH to a Jupyter server. Nothing is started before somebody connects.

    Args:
        serverapp: the `ServerApp` of jupyter_server.
        link: the connection to the service.

    Returns what `close()` ends, and whose `sessions.activity()` says how SSH is used.
    """
    from .endpoint import setup as add

    return add(serverapp, link)

"""Servers as the service sees them without the Hub: is it alive, stop it, tell its terminals.

Belongs here: backends behind the one `ServerBackend` seam: local processes, pods; the folder that
the pods of one reservation have in common.
Never here: decisions about when a server should end.
"""

from .base import ServerBackend, ServersAway
from .local import LocalServers
from .pods import PodServers
from .shared import SharedFolders

__all__ = ["LocalServers", "PodServers", "ServerBackend", "ServersAway", "SharedFolders"]

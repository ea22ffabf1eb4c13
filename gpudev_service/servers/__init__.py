"""Servers as the service sees them without the Hub: is it alive, stop it, tell its terminals.

Belongs here: backends behind the one `ServerBackend` seam: local processes, pods.
Never here: decisions about when a server should end.
"""

from .base import ServerBackend, ServersAway
from .local import LocalServers
from .pods import PodServers

__all__ = ["LocalServers", "PodServers", "ServerBackend", "ServersAway"]

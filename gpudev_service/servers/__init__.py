"""Servers as the service sees them without the Hub: is it alive, stop it, tell its terminals.

Belongs here: backends behind the one `ServerBackend` seam (local processes; pods later).
Never here: decisions about when a server should end.
"""

from .base import ServerBackend
from .local import LocalServers

__all__ = ["LocalServers", "ServerBackend"]

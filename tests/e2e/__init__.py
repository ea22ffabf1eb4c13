"""The whole thing for real: a Hub with its proxy, the service that it manages, JupyterLab.

Belongs here: what only shows when all parts run together, and the helpers for it. Nothing here
waits for a fixed time: `waiting.until` looks again until a deadline, and what must be on time is
compared by the times that the service has recorded.
"""

"""The `gpu-dev` command.

Belongs here: verbs, flags, questions, and how answers look on a terminal, in a pipe and as JSON.
Never here: calls of its own to the service (they are `Client`'s), rules that the service decides.

Nothing heavy is imported at the top of these modules (no httpx, pydantic or rich), so that `--help`
answers at once.
"""

from __future__ import annotations

from gpudev_client import interrupts

with interrupts.held():
    from .root import main

__all__ = ["main"]

"""When a loop that has left something undone runs again."""

from __future__ import annotations

from datetime import datetime, timedelta

from gpudev_service.context import Context


def next_sweep(ctx: Context) -> datetime:
    """The moment at which what did not work, or was only begun, is looked at again."""
    return ctx.clock.now() + timedelta(seconds=ctx.settings.times.sweep)

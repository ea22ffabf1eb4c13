"""What a disk's storage does not do now, as a refusal."""

from __future__ import annotations

from gpudev_service.disks.base import DiskError, DiskFull
from gpudev_service.errors import Refusal


def refusal_of(error: DiskError) -> Refusal:
    """The same for callers: its words are safe to show."""
    said = str(error)
    code = "disk_full" if isinstance(error, DiskFull) else "unavailable"
    return Refusal(code, f"{said[:1].upper()}{said[1:].removesuffix('.')}.")

"""Runs one operation on volumes and kills itself at a named step. Started by the tests of crashes.

Arguments: kubeconfig, namespace, database, operation, step.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from gpudev_service.disks.steps import VolumeStep
from gpudev_service.disks.volumes import VolumeDisks
from tests.cluster.volumes import Setting


async def operate(disks: VolumeDisks, operation: str) -> None:
    """The operations as the test knows them by name."""
    match operation:
        case "create":
            await disks.create("new")
        case "snapshot":
            await disks.snapshot("d1", "s2")
        case "clone":
            await disks.clone("d1", "new")
        case "restore":
            await disks.restore("d1", "s1")
        case "delete":
            await disks.delete_snapshot("d1", "s1")
        case "purge":
            await disks.purge("d1")
        case "index":
            await disks.index("d1", "s1")
        case _:
            raise ValueError(operation)


async def main() -> None:
    kubeconfig, namespace, database, operation, at = sys.argv[1:]

    def on_step(step: VolumeStep) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    setting = Setting(Path(kubeconfig), namespace, Path(database))
    async with setting.disks(on_step) as disks:
        await operate(disks, operation)


if __name__ == "__main__":
    asyncio.run(main())

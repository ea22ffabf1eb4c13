"""Runs one operation on disks and kills itself at a named step. Started by `test_crashes`.

Arguments: root, operation, step, how often the step passes before the kill.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from gpudev_service.disks.base import DiskBackend
from gpudev_service.disks.directories import DirectoryDisks
from gpudev_service.disks.steps import Step


async def operate(disks: DiskBackend, operation: str) -> None:
    """The operations as the test knows them by name."""
    match operation:
        case "create":
            await disks.create("new")
        case "snapshot":
            await disks.snapshot("d1", "s2")
        case "clone":
            await disks.clone("d1", "new", "s1")
        case "restore":
            await disks.restore("d1", "s1")
        case "delete":
            await disks.delete_snapshot("d1", "s1")
        case "purge":
            await disks.purge("d1")
        case "clean-up":
            await disks.clean_up()
        case _:
            raise ValueError(operation)


def main() -> None:
    root, operation, at, passes = sys.argv[1:]
    left = int(passes)

    def on_step(step: Step) -> None:
        nonlocal left
        if step == at:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    asyncio.run(operate(DirectoryDisks(Path(root), on_step=on_step), operation))


if __name__ == "__main__":
    main()

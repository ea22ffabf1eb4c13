"""Moments at which a crash is worst, as places in the code; imported by configuration files only.

`in_service` and `in_hub` wrap the functions around these places, in the process that reads the
configuration. A test arms a point by a file of its name; the process that comes by removes the file
and kills itself with SIGKILL, or freezes itself with SIGSTOP, so that each armed point strikes one
process, once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

#: Lines for `gpudev_config.py` and for `jupyterhub_config.py`.
FOR_SERVICE = "from tests.e2e import crash_points\ncrash_points.in_service()"
FOR_HUB = "from tests.e2e import crash_points\ncrash_points.in_hub()"

#: Names a Hub's directory in everything that was started for it.
_FOLDER = "GPUDEV_TESTS_DIR"

#: Files of a snapshot after which `SNAPSHOT_HALF` strikes.
HALF = 100

#: The lease has begun in the database and nobody has been told: no event is sent, no loop woken.
START_COMMITTED = "start-committed"
#: The reservation is to end; its server still runs and the Hub has not been asked to stop it.
STOP_BEGUN = "stop-begun"
#: The server is gone and its GPUs are still held: nobody has them until the service is back.
SERVER_GONE = "server-gone"
#: The GPUs are the next one's already, and the snapshot is not even written down.
RELEASED = "released"
#: The snapshot is written down and some of its files are copied.
SNAPSHOT_HALF = "snapshot-half"
#: A transaction has begun and holds the lock of all that write.
TRANSACTION_BEGUN = "transaction-begun"
#: All bytes of the snapshot are there and the database does not know it.
SNAPSHOT_COPIED = "snapshot-copied"
IN_SERVICE = (
    START_COMMITTED,
    STOP_BEGUN,
    SERVER_GONE,
    RELEASED,
    SNAPSHOT_HALF,
    SNAPSHOT_COPIED,
)

#: The server's process runs; neither the Hub nor the service has written down which one it is.
SERVER_STARTED = "server-started"
#: The server answers, and neither the Hub nor the service has written down that it does.
ANSWERED = "answered"
#: The Hub has written the server down and routes to it, and the service does not know.
ROUTED = "routed"
IN_HUB = (SERVER_STARTED, ANSWERED, ROUTED)


def arm(folder: Path, point: str, how: signal.Signals = signal.SIGKILL) -> None:
    # Whoever comes by must not read it half written.
    ready = folder / f"arm-{point}"
    ready.write_text(str(how.value))
    ready.rename(folder / f"crash-{point}")


def disarm(folder: Path) -> None:
    """Nothing strikes any more."""
    for file in folder.glob("crash-*"):
        file.unlink(missing_ok=True)


def is_armed(folder: Path, point: str) -> bool:
    return (folder / f"crash-{point}").exists()


def _crash(point: str) -> None:
    file = Path(os.environ[_FOLDER]) / f"crash-{point}"
    try:
        how = file.read_text()
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), int(how))


def in_service() -> None:
    from gpudev_service.disks import copying as trees
    from gpudev_service.disks import directories
    from gpudev_service.loops import driving as loop
    from gpudev_service.operations import snapshots as taken
    from gpudev_service.operations import views as told
    from gpudev_service.store import drivers

    # What is replaced keeps its shape, which types cannot say of a wrapper.
    views, driving, snapshots = cast("Any", told), cast("Any", loop), cast("Any", taken)
    database = cast("Any", drivers)
    tree, disks = cast("Any", trees.TreeCopy), cast("Any", directories.DirectoryDisks)

    publish, stop, release = views.publish, driving.stop_server, driving._release
    take, count, copy = snapshots.take_at_end, tree._count, disks.snapshot
    begin = database.begin_write

    async def publishing(ctx: Any, entries: Iterable[Any], *known: Any) -> None:
        news = list(entries)
        if any(e.kind == "transition" and e.state == "preparing" for e in news):
            _crash(START_COMMITTED)
        await publish(ctx, news, *known)

    async def stopping(*given: Any) -> Any:
        _crash(STOP_BEGUN)
        return await stop(*given)

    async def releasing(*given: Any) -> Any:
        _crash(SERVER_GONE)
        return await release(*given)

    async def taking(*given: Any) -> Any:
        _crash(RELEASED)
        return await take(*given)

    def counting(self: Any, size: int, *, is_new: bool) -> None:
        count(self, size, is_new=is_new)
        if self.tally.files == HALF:
            _crash(SNAPSHOT_HALF)

    async def copying(self: Any, *given: Any) -> Any:
        info = await copy(self, *given)
        _crash(SNAPSHOT_COPIED)
        return info

    async def beginning(session: Any) -> Any:
        xid = await begin(session)
        _crash(TRANSACTION_BEGUN)
        return xid

    database.begin_write = beginning
    views.publish, driving.stop_server, driving._release = publishing, stopping, releasing
    snapshots.take_at_end = taking
    tree._count, disks.snapshot = counting, copying


def in_hub() -> None:
    from gpudev_spawner.connection import Connection
    from gpudev_spawner.mixin import GpuDevMixin

    connection, mixin = cast("Any", Connection), cast("Any", GpuDevMixin)
    report, answers = connection.report, mixin._answers

    async def reporting(self: Any, reservation_id: str, said: Any) -> Any:
        if said.status == "starting":
            _crash(SERVER_STARTED)
        if said.status == "running":
            _crash(ROUTED)
        return await report(self, reservation_id, said)

    async def answering(self: Any, where: Any) -> None:
        await answers(self, where)
        _crash(ANSWERED)

    connection.report, mixin._answers = reporting, answering

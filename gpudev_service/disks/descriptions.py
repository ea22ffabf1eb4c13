"""What stands beside each snapshot's tree: its description, and so the order of the snapshots."""

import contextlib
import dataclasses
import json
from datetime import datetime

from gpudev_service.disks.base import DiskBusy, DiskFailure, SnapshotInfo, SnapshotNotFound
from gpudev_service.disks.storage import (
    DiskPlace,
    Hold,
    SnapshotPlace,
    held,
    no_disk,
    no_snapshot,
)


def newest(disk: DiskPlace, stack: contextlib.ExitStack) -> tuple[SnapshotPlace | None, int]:
    """The newest snapshot to share with, held by `stack`, and the number of the next one.

    One that is just being deleted is passed over: that must not keep a snapshot from being taken.
    """
    known = list(descriptions(disk))
    following = known[-1][0] + 1 if known else 1
    for _, place, _ in reversed(known):
        with contextlib.suppress(DiskBusy, SnapshotNotFound):
            stack.enter_context(held(place.info, Hold.SHARED, no_snapshot))
            return place, following
    return None, following


def describe(snapshot: SnapshotPlace, sequence: int, info: SnapshotInfo) -> None:
    described = dataclasses.asdict(info) | {
        "sequence": sequence,
        "taken_at": info.taken_at.isoformat(),
    }
    snapshot.info.write_text(json.dumps(described), encoding="utf-8")


def descriptions(disk: DiskPlace) -> list[tuple[int, SnapshotPlace, SnapshotInfo]]:
    """All snapshots in the order in which they were taken, which clocks do not tell for sure."""
    found = []
    try:
        tops = list(disk.snapshots.iterdir())
    except FileNotFoundError:
        raise no_disk() from None
    for top in tops:
        place = SnapshotPlace(top)
        try:
            described = json.loads(place.info.read_text(encoding="utf-8"))
        except FileNotFoundError:
            # Deleted since the directory was read.
            continue
        except ValueError as error:
            raise DiskFailure("a snapshot's description is damaged") from error
        sequence = int(described.pop("sequence"))
        described["taken_at"] = datetime.fromisoformat(described["taken_at"])
        found.append((sequence, place, SnapshotInfo(**described)))
    return sorted(found, key=lambda one: one[0])

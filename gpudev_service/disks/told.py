"""What storage says when it does not do something, in words for people.

Messages of drivers name volumes, accounts and addresses; those are for the log.
"""

from __future__ import annotations

from gpudev_service.disks.base import DiskError, DiskFailure, DiskFull

#: Parts of messages that mean that there is no room: gRPC's code, then what drivers say.
_FULL = ("resourceexhausted", "outofrange", "no space left", "quota", "insufficient capacity")
_AWAY = ("deadlineexceeded", "unavailable", "aborted", "connection refused", "timed out", "timeout")


def is_full(message: str) -> bool:
    return any(part in _plain(message) for part in _FULL)


def told(what: str, message: str | None) -> DiskError:
    """The error for work that did not come about; `what` is like "the snapshot"."""
    said = _plain(message or "")
    if any(part in said for part in _FULL):
        return DiskFull(f"The storage has no room left for {what}.")
    if not said or any(part in said for part in _AWAY):
        return DiskFailure(f"The storage did not finish {what} in time. Try again later.")
    return DiskFailure(f"The storage refused {what}. Your operators find the reason in the log.")


def _plain(message: str) -> str:
    return message.lower()

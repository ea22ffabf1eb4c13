"""Host names of reservations, and the file of their host keys that `ssh` reads.

A name arrives as somebody typed it or as a link brought it. What is not exactly `gpudev-` and the
characters of an id is refused before anything is done with it.
"""

from __future__ import annotations

import os

from .problems import Problem

PREFIX = "gpudev-"
#: As in `gpudev_client.limits`, which takes longer to import.
ID_LENGTH = 16
ID_PREFIX_MIN = 4
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz")
_REST = _FIRST | frozenset("0123456789")
_KEY = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=@.- ")


def reservation_of(host: str) -> str:
    """The id, or the beginning of one, that a host name stands for."""
    found = host.removeprefix(PREFIX)
    fits = (
        ID_PREFIX_MIN <= len(found) <= ID_LENGTH and found[0] in _FIRST and _REST.issuperset(found)
    )
    if not host.startswith(PREFIX) or not fits:
        raise Problem(
            f"{host[:80]!r} is no host of gpudev; they are called {PREFIX} and the reservation's "
            "id, such as gpudev-k2x7m4q9w3p5t8v6."
        )
    return found


def known_file(folder: str, host: str) -> str:
    """Where the host keys of `host` are written down."""
    return f"{folder}/known_hosts.d/{host}"


def write_known(folder: str, host: str, keys: list[str]) -> None:
    """Writes the host keys of `host`, at once and readable by nobody else."""
    if not keys or not all(key and _KEY.issuperset(key) for key in keys):
        raise Problem("The server has not said which host key it has; not connected.")
    target = known_file(folder, host)
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
        temporary = f"{target}.{os.getpid()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.writelines(f"{host} {key}\n" for key in keys)
        os.rename(temporary, target)  # noqa: PTH104
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise Problem(f"The host key cannot be written to {target} ({reason}).") from error

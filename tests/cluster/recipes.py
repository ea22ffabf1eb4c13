"""The project's images and their stand-ins, built for the cluster of the tests.

Not a test of its own: what tests that install gpudev need.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.tiers import ROOT
from tools.cluster import images
from tools.cluster.cluster import Cluster
from tools.cluster.place import default_place

#: Where each image's recipe is, and which other image it stands on; None: Debian.
RECIPES: dict[str, tuple[str, str | None]] = {
    "gpudev-service": ("images/service", None),
    "gpudev-singleuser": ("images/singleuser", None),
    "k8s-hub": ("tests/cluster/images/k8s-hub", None),
    "gpudev-hub": ("images/hub", "k8s-hub"),
    "proxy": ("tests/cluster/images/proxy", None),
    "postgres": ("tests/cluster/images/postgres", None),
}
#: What the recipes copy; nothing else of the tree makes a new image.
_COPIED = (
    "images/add.py",
    "images/sbom.py",
    "package.json",
    "package-lock.json",
    "tools/compiled.py",
)


def name(image: str) -> str:
    """The image's name without a tag; no registry has it, so that nothing is ever pulled."""
    return f"gpudev.test/{image}"


TAG = "test"


def load(cluster: Cluster, wanted: Iterable[str]) -> None:
    """Gives images to the node, built anew where their parts have changed."""
    for archive in build(wanted).values():
        cluster.load(archive)


def build(wanted: Iterable[str]) -> dict[str, Path]:
    """Archives of the images; in this tree, whichever tree's cluster runs."""
    folder = default_place().home / "context"
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _context(folder)
        return {image: _build(folder, image) for image in wanted}


def _build(context: Path, image: str) -> Path:
    recipe, base = RECIPES[image]
    arguments = {}
    if base is not None:
        _build(context, base)
        arguments["BASE"] = f"{name(base)}:{TAG}"
    return images.build(
        default_place(), ROOT / recipe, f"{name(image)}:{TAG}", arguments, context=context
    )


def _context(folder: Path) -> None:
    """The files that recipes copy, in the places where they stand in the tree."""
    for file in (*_COPIED, *(f"requirements/{p.name}" for p in ROOT.glob("requirements/*.txt"))):
        _copy(ROOT / file, folder / file)
    for path in ROOT.glob("tests/cluster/images/*/*"):
        _copy(path, folder / path.relative_to(ROOT))
    _wheel(folder / "dist")


def _wheel(target: Path) -> None:
    """The tree's own wheel. It is built the same from the same files, so an old one stays."""
    fresh = target.with_name("dist-new")
    shutil.rmtree(fresh, ignore_errors=True)
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "build", "--quiet", "--wheel", "--no-build-isolation"]
    subprocess.run(
        [*command, f"--python={sys.executable}", f"--out-dir={fresh}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = fresh.glob("gpudev-*.whl")
    target.mkdir(exist_ok=True)
    for old in target.glob("*.whl"):
        if old.name != wheel.name:
            old.unlink()
    _copy(wheel, target / wheel.name)
    shutil.rmtree(fresh)


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)

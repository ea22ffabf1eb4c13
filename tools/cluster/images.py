"""Images for the cluster, without a registry: a base from Debian, Dockerfiles on it, and archives.

The base stands in for the one that a Dockerfile names in its build argument `BASE`. It brings this
machine's certificate authorities and its settings for pip and npm, as a company's own base would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import remains
from .place import ClusterError, Place

SUITE = "bookworm"
BASE = f"gpudev.test/debian:{SUITE}"
_INCLUDE = "ca-certificates,python3,python3-venv"
_OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_SETTINGS = {
    "etc/pip.conf": f"[global]\ncert = {_BUNDLE}\ndisable-pip-version-check = 1\n",
    "etc/npmrc": f"cafile={_BUNDLE}\n",
    "root/.npmrc": f"cafile={_BUNDLE}\n",
}
_ENVIRONMENT = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
_DIGEST = "test.gpudev.made-from"


def base(place: Place) -> str:
    """The tag of the base image; it is made when it is missing or meant differently."""
    wanted = hashlib.sha256(
        repr((SUITE, _INCLUDE, _SETTINGS, _ENVIRONMENT)).encode()
        + b"".join(path.read_bytes() for path in _authorities())
    ).hexdigest()
    if _made_from(place, BASE) != wanted:
        with _scratch(place) as folder:
            root = folder / "root"
            _run(["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", SUITE, str(root)])
            _adapt(root)
            container = buildah(place, "from", "scratch").strip()
            try:
                buildah(place, "add", "--quiet", container, str(root), "/")
                environment = [f"--env={name}={_BUNDLE}" for name in _ENVIRONMENT]
                label = f"--label={_DIGEST}={wanted}"
                buildah(place, "config", *environment, label, "--cmd=/bin/bash", container)
                buildah(place, "commit", "--quiet", container, BASE)
            finally:
                buildah(place, "rm", container)
    return BASE


def build(
    place: Place,
    folder: Path,
    tag: str,
    build_args: Mapping[str, str] | None = None,
    *,
    context: Path | None = None,
) -> Path:
    """Builds `folder/Dockerfile` and returns an archive of the image, for `Cluster.load`.

    The build argument `BASE` is the base image of here unless another is given. Nothing is built
    when neither the context nor the arguments have changed since the last time.

    Args:
        place: whose images; each tree has its own.
        folder: where the Dockerfile is.
        tag: what pods will call the image.
        build_args: build arguments.
        context: what `COPY` copies from; the folder itself when it is not given.
    """
    arguments = {"BASE": base(place), **(build_args or {})}
    context = context or folder
    digest = _digest(place, folder / "Dockerfile", context, arguments)
    archive = place.images / f"{tag.replace('/', '_').replace(':', '_')}-{digest[:16]}.tar"
    if archive.exists():
        return archive
    place.images.mkdir(parents=True, exist_ok=True)
    buildah(
        place,
        *(
            "build",
            "--isolation=chroot",
            "--network=host",
            "--layers",
            "--pull-never",
            "--force-rm",
        ),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        *(f"--file={folder / 'Dockerfile'}", f"--tag={tag}", str(context)),
    )
    for old in place.images.glob(f"{archive.name.rpartition('-')[0]}-*"):
        old.unlink()
    draft = archive.with_suffix(".new")
    buildah(place, "push", "--quiet", tag, f"docker-archive:{draft}:{tag}")
    draft.replace(archive)
    return archive


def abandon(place: Place) -> None:
    """Takes away the containers and mounts that killed builds have left. Images stay."""
    store = place.home / "buildah" / "store"
    if not store.exists():
        return
    buildah(place, "rm", "--all")
    # The store itself is mounted for each command, and stays so.
    remains.unmount_all(store)


def _adapt(root: Path) -> None:
    for name, text in _SETTINGS.items():
        (root / name).write_text(text)
    for path in _authorities():
        shutil.copy(path, root / str(_OWN_AUTHORITIES).lstrip("/") / path.name)
    _run(["chroot", str(root), "update-ca-certificates"])
    for junk in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / junk)
        (root / junk / "partial").mkdir(parents=True)


def _authorities() -> list[Path]:
    return sorted(_OWN_AUTHORITIES.glob("*.crt"))


def _digest(place: Place, dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr((sorted(arguments.items()), _made_from(place, BASE))).encode())
    digest.update(dockerfile.read_bytes())
    for path in sorted(context.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(context))
            digest.update(f"{name}\0{path.stat().st_mode:o}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _made_from(place: Place, tag: str) -> str | None:
    """The digest that the image of this tag bears; None where there is no such image."""
    program = _buildah_command(place)
    command = [*program, "inspect", "--type=image", tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    labels = json.loads(done.stdout)["OCIv1"]["config"].get("Labels") or {}
    found: str | None = labels.get(_DIGEST)
    return found


def buildah(place: Place, *arguments: str) -> str:
    """What a command on the tree's own images prints.

    Raises:
        ClusterError: it failed; with its last lines.
    """
    return _run([*_buildah_command(place), *arguments])


def _buildah_command(place: Place) -> list[str]:
    store = place.home / "buildah"
    return [
        "buildah",
        f"--root={store}/store",
        f"--runroot={store}/run",
        "--storage-driver=overlay",
    ]


@contextlib.contextmanager
def _scratch(place: Place) -> Iterator[Path]:
    place.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.home, prefix="scratch-") as folder:
        yield Path(folder)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise ClusterError(f"{' '.join(command[:6])} … failed:\n{said}")
    return done.stdout

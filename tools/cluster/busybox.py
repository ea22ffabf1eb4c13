"""The smallest image there is: Debian's static busybox. Sandboxes and tests' pods run it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from .place import ClusterError, Place

_PROGRAM = Path("/bin/busybox")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def archive(place: Place, tag: str) -> Path:
    """An archive of the image with this tag, for `ctr images import`; made once per busybox."""
    if not _PROGRAM.exists():
        raise ClusterError(
            "busybox-static is not installed; tools/system-packages lists what is needed."
        )
    program = _PROGRAM.read_bytes()
    digest = hashlib.sha256(program + tag.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    path = place.images / f"busybox-{digest}.tar"
    if not path.exists():
        place.images.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_bytes(_image(_layer(program), tag))
        draft.replace(path)
    return path


def _layer(program: bytes) -> bytes:
    applets = subprocess.run([_PROGRAM, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", program, 0o755)
        for name, text in _FILES.items():
            _add(tar, name, text.encode(), 0o644)
        for applet in sorted(set(applets.stdout.split()) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _image(layer: bytes, tag: str) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        # As the first process of a sandbox it sleeps until it is killed.
        "config": {"Cmd": ["/bin/sleep", "infinity"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "config.json", json.dumps(config).encode(), 0o644)
        _add(tar, "layer.tar", layer, 0o644)
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))

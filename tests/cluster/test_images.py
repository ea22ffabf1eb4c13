"""An image is built here, and the kubelet runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.pods import pod, run
from tools.cluster import images, remains
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl
from tools.cluster.place import Place, default_place

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TAG = "gpudev.test/greeting:1"
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
ARG WHOM=nobody
COPY greeting.txt /greeting.txt
RUN sed -i "s/WHOM/${WHOM}/" /greeting.txt
USER 1000:1000
CMD ["python3", "-c", "print(open('/greeting.txt').read(), end='')"]
"""


@pytest.mark.timeout(900)  # the base is made from Debian's packages, once
def test_a_dockerfile_becomes_a_pod(cluster: Cluster, namespace: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "greeting.txt").write_text("hello WHOM\n")
    archive = images.build(default_place(), tmp_path, TAG, {"WHOM": "world"})
    written = archive.stat().st_mtime_ns
    cluster.load(archive)
    greets = pod("greets", "")
    [container] = greets["spec"]["containers"]
    del container["command"]
    container["image"] = TAG
    assert run(namespace, greets) == "hello world\n"
    # The same again is not built again; another argument is.
    again = images.build(default_place(), tmp_path, TAG, {"WHOM": "world"})
    assert (again, again.stat().st_mtime_ns) == (archive, written)
    assert images.build(default_place(), tmp_path, TAG, {"WHOM": "moon"}) != archive


def test_what_a_killed_build_left_is_taken_away(tmp_path: Path) -> None:
    place = Place(tmp_path / "home")
    container = images.buildah(place, "from", "scratch").strip()
    images.buildah(place, "mount", container)
    assert remains.mounts(tmp_path)
    images.abandon(place)
    assert remains.mounts(tmp_path) == []
    assert images.buildah(place, "containers", "--quiet") == ""
    images.abandon(place)  # leaves no mount, although asking made one
    assert remains.mounts(tmp_path) == []

"""Down leaves nothing, and a start that fails takes itself back.

Each of these starts a cluster of its own, in namespaces of the kernel where the tests' shared one
does not stand in its way: network and mounts, with folders of their own where programs insist.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiers import ROOT
from tools.cluster import node
from tools.cluster.cluster import Cluster
from tools.cluster.place import Place

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_PRELUDE = """
import subprocess, sys
from pathlib import Path
from tests.cluster.pods import claim, pod
from tools.cluster.cluster import Cluster
from tools.cluster.place import ClusterError, Place

cluster = Cluster(Place(Path(sys.argv[1])))

def points():
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]

def seen():
    "What the machine has, without asking our own code."
    def said(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "links": said("ip", "-brief", "link"),
        "rules": [line for line in said("iptables-save").splitlines() if line[0] == "-"],
        # Others' mounts may go meanwhile: the kernel takes them where their folder is removed.
        "mounts": [point for point in points() if point.startswith((sys.argv[1], "/run", "/var"))],
        "run": sorted(map(str, Path("/run").iterdir())),
        "lib": sorted(map(str, Path("/var/lib").iterdir())),
        "forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }

before = seen()
"""


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Place]:
    """A place for a second cluster, with the programs and images of the first."""
    # Not pytest's folder: its path is too long for sockets.
    with tempfile.TemporaryDirectory(prefix="gpudev-") as folder:
        home = Path(folder)
        for name in ("bin", "images"):
            (home / name).symlink_to(getattr(cluster.place, name))
        yield Place(home)


def test_down_leaves_nothing_even_of_pods_with_volumes(place: Place) -> None:
    _apart(
        place,
        """
cluster.up()
cluster.kubectl.apply(claim("disk"), pod("lives", "exec sleep 1000", volumes={"/home": "disk"}))
cluster.kubectl.wait("pod/lives", "Ready")
assert "gpudev0" in seen()["links"]
cluster.down()
assert seen() == before, (before, seen())
""",
    )
    _nothing_is_left(place)


def test_a_start_that_fails_takes_itself_back(place: Place) -> None:
    _apart(
        place,
        """
import dataclasses
from tools.cluster import node
make = node.kubelet

def broken(place, state):
    part = make(place, state)
    return dataclasses.replace(part, command=[*part.command, "--no-such-flag"])

node.kubelet = broken
try:
    cluster.up()
except ClusterError as problem:
    assert "kubelet has ended" in str(problem) and "--no-such-flag" in str(problem), problem
else:
    raise AssertionError("it started")
assert seen() == before, (before, seen())
""",
    )
    _nothing_is_left(place)
    assert (place.last_logs / "kubelet.log").exists()


def test_what_a_killed_cluster_left_is_taken_away_by_the_next(place: Place) -> None:
    _apart(
        place,
        """
import shutil
from tools.cluster import processes
cluster.up()
cluster.kubectl.apply(pod("lives", "exec sleep 1000"))
cluster.kubectl.wait("pod/lives", "Ready")
processes.kill(processes.marked(cluster.place))
next_home = Path(sys.argv[1] + "-next")
next_home.mkdir()
(next_home / "bin").symlink_to(cluster.place.bin)
(next_home / "images").symlink_to(cluster.place.images)
following = Cluster(Place(next_home))
try:
    following.up()
    assert not processes.marked(cluster.place) and not cluster.place.run.exists()
    following.down()
finally:
    shutil.rmtree(next_home)
assert seen() == before, (before, seen())
""",
    )
    _nothing_is_left(place)


def test_down_leaves_the_network_to_the_cluster_that_has_it(place: Place) -> None:
    _apart(
        place,
        """
from tools.cluster import network, remains
from tools.cluster.place import State

# As after a crash: processes and network are gone, what was noted is not.
state = State.new(cluster.place)
remains.note(state)
network.up(cluster.place, state)
network.down(state)
other = Place(Path(sys.argv[1] + "-other"))
theirs = State.new(other)
network.up(other, theirs)
with_theirs = seen()
cluster.down()
assert seen() == with_theirs, (with_theirs, seen())
network.down(theirs)
import shutil
shutil.rmtree(other.home)
assert seen() == before, (before, seen())
""",
    )
    _nothing_is_left(place)


def _apart(place: Place, script: str) -> None:
    """Runs Python in namespaces of its own."""
    prepare = 'ip link set lo up; mount -t tmpfs none /run; mount -t tmpfs none /var/lib; exec "$@"'
    unshare = ["unshare", "--mount", "--net", "--fork", "sh", "-ec", prepare, "sh"]
    done = subprocess.run(
        [*unshare, sys.executable, "-c", _PRELUDE + script, str(place.home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]


def _nothing_is_left(place: Place) -> None:
    assert not place.run.exists()
    mine = str(place.home)
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            assert mine.encode() not in process.read_bytes(), process.parent.name
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile, or the machine's own
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{node.cgroup(place)}"))

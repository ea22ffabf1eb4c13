"""Reservations of several nodes: real pods that find each other, work together and end together.

The cluster has one real node. Two nodes of the plan are that one, so both pods run there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tools.cluster import node
from tools.cluster.cluster import Cluster

from .kills import processes
from .site import Site, built, opened

pytestmark = [pytest.mark.cluster, pytest.mark.hub]

_SERVICE = f"""
c.GpuDev.fleet = "static"
c.GpuDev.servers = "kubernetes"
c.GpuDev.shared_storage_class = "folders"
c.GpuDev.policy = {{"min_hours": 0.005, "default": {{"images": ["*"]}}}}
c.GpuDev.times = {{"warnings": []}}
c.GpuDev.gpu_types = {{
    "pair": {{"gpus_per_node": 1, "max_nodes": 2, "cpus": 1, "memory_gb": 1, "kubernetes": {{}}}},
}}
c.GpuDev.nodes = [
    {{"name": "first", "gpu_type": "pair", "host": {node.NAME!r}, "zone": {node.ZONE!r}}},
    {{"name": "second", "gpu_type": "pair", "host": {node.NAME!r}, "zone": {node.ZONE!r}}},
]
"""

#: All processes meet at rank 0 and tell each other their ranks, as a launcher's store does it.
MEET = """
import json, os, socket, sys, time
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
at = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    server = socket.create_server(("", at[1]))
    others = [server.accept()[0] for _ in range(world - 1)]
    found = [0] + [json.loads(one.makefile().readline()) for one in others]
    for one in others:
        one.sendall((json.dumps(sorted(found)) + "\\n").encode())
    print(sorted(found))
else:
    deadline = time.monotonic() + 60
    while True:
        try:
            mine = socket.create_connection(at, timeout=5)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    mine.sendall((json.dumps(rank) + "\\n").encode())
    print(json.loads(mine.makefile().readline()))
"""


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    built(cluster)
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        opened(cluster, monkeypatch, service=_SERVICE) as site,
    ):
        yield site


@pytest.fixture(scope="module")
def pair(site: Site) -> Reservation:
    return site.runs(gpu_type="pair", gpus=2)


def test_both_pods_run_and_know_their_ranks(site: Site, pair: Reservation) -> None:
    first, second = site.pods(pair)
    assert [one["spec"]["hostname"] for one in (first, second)] == ["rank-0", "rank-1"]
    assert second["metadata"]["ownerReferences"][0]["uid"] == first["metadata"]["uid"]
    asked = "echo $RANK $WORLD_SIZE $NNODES"
    assert site.inside(pair, asked) == "0 2 2\n"
    assert site.inside(pair, asked, rank=1) == "1 2 2\n"


def test_ssh_from_the_server_to_a_worker_needs_a_name_only(site: Site, pair: Reservation) -> None:
    said = site.inside(pair, "ssh rank-1 'hostname; echo $RANK; test -z \"$JUPYTERHUB_API_TOKEN\"'")
    assert said == "rank-1\n1\n"
    assert site.inside(pair, "ssh rank-0 hostname", rank=1) == "rank-0\n"


def test_processes_on_both_meet(site: Site, pair: Reservation) -> None:
    site.inside(pair, f"cat > /tmp/meet.py <<'END'\n{MEET}\nEND\n")
    site.inside(pair, "scp -q /tmp/meet.py rank-1:/tmp/meet.py")
    both = site.inside(
        pair, "ssh rank-1 python3 /tmp/meet.py & python3 /tmp/meet.py; wait; echo done"
    )
    assert both.split("\n")[:3] == ["[0, 1]", "[0, 1]", "done"]


def test_a_folder_is_the_same_on_both(site: Site, pair: Reservation) -> None:
    site.inside(pair, "echo from the first > /shared/found.txt")
    assert site.inside(pair, "cat /shared/found.txt", rank=1) == "from the first\n"
    site.inside(pair, "echo and back >> /shared/found.txt", rank=1)
    assert site.inside(pair, "cat /shared/found.txt") == "from the first\nand back\n"


def test_a_worker_that_is_lost_is_told(site: Site, pair: Reservation) -> None:
    site.kubectl("delete", "pod", f"gpudev-{pair.id}-1", "--grace-period=0", "--force")
    assert "worker on second" in site.until_told(pair, "The worker on")
    site.client.cancel(pair.id)
    site.until(pair, State.CANCELLED)
    site.gone(pair)
    for kind in ("secret", "service"):
        site.kubectl.wait(f"{kind}/gpudev-{pair.id}", "delete")
    site.kubectl.wait(f"persistentvolumeclaim/gpudev-{pair.id}-shared", "delete")


def test_the_end_of_the_time_takes_all_pods_and_leaves_the_disk(site: Site) -> None:
    """The disk is the server's; of the other pods it is none."""
    asked = {"gpu_type": "pair", "gpus": 2, "disk": "thesis", "create_disk": True}
    lease = site.runs(hours=0.03, **asked)
    site.inside(lease, "echo kept > ~/kept")
    assert "No such file" in site.inside(lease, "ls ~/kept 2>&1 || true", rank=1)
    assert processes([lease.id]), "what is looked for can be seen"
    assert len(site.pods(lease)) == 2
    site.until(lease, State.EXPIRED)
    assert not processes([lease.id])
    site.gone(lease)
    site.kubectl.wait(f"service/gpudev-{lease.id}", "delete")
    again = site.runs(**asked)
    assert site.inside(again, "cat ~/kept") == "kept\n"
    site.end(again)

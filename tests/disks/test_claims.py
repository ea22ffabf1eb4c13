"""What claims and snapshots of a cluster mean, and how they are asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpudev_service.disks import claims
from gpudev_service.disks.base import DiskFailure, DiskFull, InvalidDiskId
from gpudev_service.disks.claims import State, current, following, quantity
from gpudev_service.disks.index_pods import IndexPods, failure, pod_name
from gpudev_service.disks.reach import Reach, reach_of
from gpudev_service.disks.told import told

NOW = datetime(2031, 5, 1, 12, 0, 0, tzinfo=UTC)


def as_stored(manifest: dict[str, Any], **status: Any) -> dict[str, Any]:
    """A manifest as the API server gives it back."""
    meta = manifest["metadata"] | {"resourceVersion": "7", "creationTimestamp": NOW.isoformat()}
    return manifest | {"metadata": meta, "status": status}


def claim(generation: int, state: State, **changes: Any) -> claims.Claim:
    made = claims.new_claim("d1", generation, state, NOW, size_bytes=5 * 10**9, storage_class="s")
    found = as_stored(made, phase="Bound")
    found["metadata"] |= changes
    return claims.claim(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("123456789012", 123456789012),
        ("10G", 10**10),
        ("10Gi", 10 * 2**30),
        ("1.5Ki", 1536),
        ("1e3", 1000),
        ("128974848000m", 128974848),
        ("2Ei", 2**61),
    ],
)
def test_a_quantity_is_read(text: str, expected: int) -> None:
    assert quantity(text) == expected


@pytest.mark.parametrize("text", ["", "G", "1 G", "-1", "1Gb", "x"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        quantity(text)


def test_what_is_asked_for_is_what_is_found() -> None:
    made = claims.new_claim(
        "d1", 3, State.MAKING, NOW, size_bytes=5, storage_class="fast", draws_on="gpudev-s1"
    )
    found = claims.claim(as_stored(made))
    assert (found.name, found.disk, found.generation, found.state) == (
        "gpudev-d1-g3",
        "d1",
        3,
        "making",
    )
    assert (found.touched, found.draws_on, found.bound) == (NOW, "gpudev-s1", False)
    assert (found.asked_bytes, found.storage_class, found.is_empty) == (5, "fast", False)


def test_the_highest_live_generation_is_the_disk() -> None:
    old, new = claim(1, State.LIVE), claim(2, State.LIVE)
    making, gone = claim(3, State.MAKING), claim(4, State.PURGED)
    assert current([old, making, gone]) == old
    assert current([new, old, making, gone]) == new
    assert current([making, gone]) is None
    assert current([claim(1, State.LIVE, deletionTimestamp=NOW.isoformat())]) is None
    assert following([old, making]) == 4
    assert following([]) == 1


def test_a_snapshot_counts_when_its_content_is_ready() -> None:
    made = claims.new_snapshot("d1", "s1", "gpudev-d1-g1", 4, NOW, snapshot_class=None)
    waiting = claims.taken(as_stored(made, error={"message": "no"}))
    assert (waiting.is_complete, waiting.error, waiting.sequence) == (False, "no", 4)
    taken_at = "2031-05-01T11:59:58.123456789Z"
    ready = claims.taken(as_stored(made, readyToUse=True, creationTime=taken_at, restoreSize="1Gi"))
    assert ready.is_complete
    assert ready.size_bytes == 2**30
    assert ready.taken_at == NOW - timedelta(seconds=1, microseconds=876544)
    source = claims.new_snapshot(
        "d1", "s1", "gpudev-d1-g1", 4, NOW, snapshot_class="c", state=State.SOURCE
    )
    assert not claims.taken(as_stored(source, readyToUse=True)).is_complete


@pytest.mark.parametrize("hostile", ["", "a_b", "-a", "a-", "A", "a" * 41, "../x", "a.b"])
def test_only_ids_become_names(hostile: str) -> None:
    with pytest.raises(InvalidDiskId):
        claims.claim_name(hostile, 1)
    for name in (claims.snapshot_name, pod_name):
        with pytest.raises(InvalidDiskId):
            name(hostile)


# --- where a volume is ------------------------------------------------------------------------


def volume(*terms: dict[str, list[str]]) -> dict[str, Any]:
    """A PersistentVolume with these terms, each key and its values."""
    written = [
        {
            "matchExpressions": [
                {"key": key, "operator": "In", "values": values} for key, values in term.items()
            ]
        }
        for term in terms
    ]
    return {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": written}}}}


def test_a_volume_says_where_it_can_be_used() -> None:
    zone, host = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
    assert reach_of({"spec": {}}) is None
    assert reach_of(volume({"example.com/rack": ["r1"]})) is None
    assert reach_of(volume({zone: ["a"]})) == Reach(zones=("a",))
    assert reach_of(volume({"topology.ebs.csi.aws.com/zone": ["b", "a"]})) == Reach(("a", "b"))
    assert reach_of(volume({zone: ["a"]}, {zone: ["b"]})) == Reach(("a", "b"))
    assert reach_of(volume({zone: ["a"]}, {"example.com/rack": ["r1"]})) is None
    assert reach_of(volume({host: ["n1"]})) == Reach(hosts=("n1",))
    assert reach_of(volume({zone: ["a"], host: ["n1"]})) == Reach(("a",), ("n1",))


def test_a_machine_is_within_reach_or_not() -> None:
    assert Reach(zones=("a",)).covers("a", "n1")
    assert not Reach(zones=("a",)).covers("b", "n1")
    assert not Reach(zones=("a",)).covers(None, "n1")
    assert Reach(hosts=("n1",)).covers(None, "n1")
    assert not Reach(("a",), ("n1",)).covers("a", "n2")
    for reach in (Reach(("a",)), Reach(hosts=("n1", "n2"))):
        assert Reach.from_json(reach.to_json()) == reach


# --- what storage says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "kind", "says"),
    [
        ("rpc error: code = ResourceExhausted desc = vol-0123 no", DiskFull, "no room"),
        ("write /mnt/x: no space left on device", DiskFull, "no room"),
        ("rpc error: code = DeadlineExceeded desc = context", DiskFailure, "in time"),
        (None, DiskFailure, "in time"),
        ("rpc error: code = Internal desc = secret-account vol-0123", DiskFailure, "refused"),
    ],
)
def test_what_storage_says_is_told_without_its_internals(
    message: str | None, kind: type[Exception], says: str
) -> None:
    error = told("the snapshot", message)
    assert type(error) is kind
    assert says in str(error)
    assert not {"vol-0123", "secret", "/mnt"} & set(str(error).split())


# --- the pod that lists -------------------------------------------------------------------------


def test_the_pod_that_lists_has_no_privilege() -> None:
    taken = claims.taken(
        as_stored(
            claims.new_snapshot("d1", "s1", "gpudev-d1-g1", 1, NOW, snapshot_class=None),
            readyToUse=True,
            restoreSize="2Gi",
        )
    )
    borne = ({"key": "nvidia.com/gpu", "operator": "Exists"},)
    pod = IndexPods("registry.test/gpudev:1", tolerations=borne).manifest(taken, "fast", 10**9)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["volumeMounts"][0]["readOnly"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["tolerations"] == [*borne]
    source = spec["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert source["dataSource"]["name"] == "gpudev-s1"
    assert source["resources"]["requests"]["storage"] == str(2 * 2**30)


def test_a_pod_that_will_not_end_is_told() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
    assert failure({"status": {"phase": "Pending"}}) is None
    assert "image" in str(failure({"status": {"phase": "Pending", "containerStatuses": [waiting]}}))
    assert failure({"status": {"phase": "Failed"}}) is not None
    assert failure({"status": {"phase": "Succeeded"}}) is None

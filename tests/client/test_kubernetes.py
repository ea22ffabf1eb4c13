"""Names of objects in a cluster: DNS labels, each of one thing only."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from gpudev_client import kubernetes
from gpudev_client.ids import new_id

#: RFC 1123, as Kubernetes takes it for Services and labels.
DNS_LABEL = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"


def test_names_are_dns_labels_and_differ() -> None:
    key = new_id()
    pods = [kubernetes.worker_name(key, rank) for rank in (0, 1, 11, kubernetes.RANK_MAX)]
    assert all(re.fullmatch(DNS_LABEL, name) for name in [*pods, kubernetes.service_name(key)])
    assert all(one != other for one, other in pairwise(sorted(pods)))
    assert kubernetes.service_name(key) not in pods, "a pod's host name is looked up beside it"


@pytest.mark.parametrize("key", ["", "a" * 15, "A" * 16, "a" * 15 + "-", "../" + "a" * 13])
def test_only_ids_become_names(key: str) -> None:
    with pytest.raises(ValueError, match="no id"):
        kubernetes.service_name(key)
    with pytest.raises(ValueError, match="no id"):
        kubernetes.worker_name(key, 0)


def test_ranks_are_bounded() -> None:
    with pytest.raises(ValueError, match="rank"):
        kubernetes.worker_name(new_id(), kubernetes.RANK_MAX + 1)

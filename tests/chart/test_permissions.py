"""Who may do what in the cluster: no more than the parts do, and nothing as root."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import EVERYTHING, LEAST, TRIAL, Manifest, render
from tests.chart.restricted import breaches

pytestmark = pytest.mark.chart

#: What each account may do: in the release's namespace, and in the whole cluster.
MAY: dict[str, tuple[set[tuple[str, str]], set[tuple[str, str]]]] = {
    "gpudev": (
        {
            *((verb, "pods") for verb in ("create", "get", "list", "delete")),
            ("get", "pods/log"),
            ("list", "events"),
            *(
                (verb, kind)
                for kind in ("persistentvolumeclaims", "snapshot.storage.k8s.io/volumesnapshots")
                for verb in ("create", "get", "list", "patch", "delete")
            ),
        },
        {
            *((verb, "nodes") for verb in ("get", "list", "watch")),
            *((verb, "pods") for verb in ("list", "watch")),
            ("get", "persistentvolumes"),
            ("get", "storage.k8s.io/storageclasses"),
        },
    ),
    "hub": (
        {
            *((verb, "pods") for verb in ("create", "get", "list", "watch", "delete")),
            *((verb, "events") for verb in ("list", "watch")),
            *(
                (verb, kind)
                for kind in ("services", "secrets", "networking.k8s.io/networkpolicies")
                for verb in ("create", "delete")
            ),
        },
        set(),
    ),
    "gpudev-cleanup": (
        {
            *(
                (verb, kind)
                for kind in ("pods", "services", "persistentvolumeclaims")
                for verb in ("list", "delete")
            ),
            *((verb, "networking.k8s.io/networkpolicies") for verb in ("list", "delete")),
        },
        set(),
    ),
}


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {
        (verb, f"{group}/{resource}" if group else resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def accounts(manifests: list[Manifest]) -> dict[str, tuple[set[Any], set[Any]]]:
    """What each account may do in the namespace and in the cluster, through its bindings."""
    roles = {
        (each["kind"], each["metadata"]["name"]): granted(each["rules"])
        for each in manifests
        if each["kind"] in {"Role", "ClusterRole"}
    }
    found: dict[str, tuple[set[Any], set[Any]]] = {}
    for binding in manifests:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        for subject in binding["subjects"]:
            here, everywhere = found.setdefault(subject["name"], (set(), set()))
            may = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
            (here if binding["kind"] == "RoleBinding" else everywhere).update(may)
    return found


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_every_account_may_what_is_written_here_and_nothing_more(values: dict[str, Any]) -> None:
    assert accounts(render(values).manifests) == MAY


def test_no_rule_has_a_wildcard_or_an_escalation() -> None:
    for values in (EVERYTHING, {**LEAST, "jupyterhub": {"rbac": {"create": True}}}):
        for role in render(values).all("Role", "ClusterRole"):
            for rule in role["rules"]:
                words = {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
                assert not words & {"*", "escalate", "bind", "impersonate", "pods/exec"}


def test_the_jupyterhub_charts_own_role_takes_the_place_of_ours_where_it_is_wanted() -> None:
    rendered = render(LEAST, {"jupyterhub": {"rbac": {"create": True}}})
    assert "gpudev-hub" not in rendered.names("Role")
    assert "hub" in rendered.names("Role")


def test_without_rbac_nothing_is_granted() -> None:
    made = render(LEAST, {"rbac": {"create": False}, "cleanup": {"enabled": False}})
    assert accounts(made.manifests) == {}


@pytest.mark.parametrize("upgrade", [False, True], ids=["install", "upgrade"])
@pytest.mark.parametrize("values", [LEAST, TRIAL, EVERYTHING], ids=["least", "trial", "everything"])
def test_every_pod_fits_a_namespace_with_the_restricted_profile(
    values: dict[str, Any], upgrade: bool
) -> None:
    found = {
        name: breaches(pod["spec"]) for name, pod in render(values, upgrade=upgrade).pods().items()
    }
    assert {name: each for name, each in found.items() if each} == {}


def test_our_containers_cannot_write_to_their_image_and_have_bounds() -> None:
    for name, pod in render(EVERYTHING, upgrade=True).pods().items():
        if not name.partition("/")[2].startswith("gpudev"):
            continue
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"]["cpu"], name


def test_who_has_an_account_of_the_cluster_in_the_pod() -> None:
    without = {
        name
        for name, pod in render(TRIAL, upgrade=True).pods().items()
        if pod["spec"].get("automountServiceAccountToken") is False
    }
    assert {"Job/gpudev-migrate", "StatefulSet/gpudev-database"} <= without
    assert "Deployment/gpudev" not in without

"""The chart renders with every option, and what it renders is valid for the pinned Kubernetes."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from tests.chart import rendering
from tests.chart.rendering import CHART, EVERYTHING, EXAMPLES, LEAST, TRIAL, example, helm, render
from tests.chart.validation import conforms
from tests.tiers import ROOT

pytestmark = pytest.mark.chart

URL: dict[str, Any] = {"database": {"url": "postgresql://gpudev:secret@db/gpudev"}}
#: Several replicas of the service.
REPLICAS: dict[str, Any] = {"service": {"replicas": 3}}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "least": (LEAST,),
    "url": (URL,),
    "trial": (TRIAL,),
    "everything": (EVERYTHING,),
    "no-internet": (LEAST, {"networkPolicy": {"users": {"internet": False}}}),
    "no-policies": (LEAST, {"networkPolicy": {"enabled": False}}),
    "pod-monitor": (LEAST, {"monitoring": {"monitor": "pod"}}),
    "no-budgets": (LEAST, {"podDisruptionBudgets": {"service": False, "users": False}}),
    "no-hooks": (LEAST, {"migrations": {"enabled": False}, "cleanup": {"enabled": False}}),
    "no-rbac": (LEAST, {"rbac": {"create": False}}),
    "z2jh-rbac": (LEAST, {"jupyterhub": {"rbac": {"create": True}}}),
    "replicas": (LEAST, REPLICAS),
    "dns-anywhere": (LEAST, {"networkPolicy": {"dns": {"namespace": "dns", "podLabels": None}}}),
    **{name: (example(name),) for name in EXAMPLES},
}


@pytest.mark.parametrize("upgrade", [False, True], ids=["install", "upgrade"])
@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_rendered_is_valid_for_the_pinned_kubernetes(option: str, upgrade: bool) -> None:
    assert conforms(render(*OPTIONS[option], upgrade=upgrade).text) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_pass_helm_lint(name: str) -> None:
    said = helm("lint", "--strict", str(rendering.prepared()), values=[example(name)])
    assert said.code == 0, said.out


def test_an_invalid_manifest_would_be_found() -> None:
    text = (
        render(LEAST)
        .text.replace("replicas: 1", "replicas: many")
        .replace("kind: Role\n", "kind: Rule\n")
    )
    found = conforms(text)
    assert any("replicas" in line for line in found)
    assert any("Rule" in line for line in found)


def test_every_object_stands_once() -> None:
    for values in OPTIONS.values():
        made = [(m["kind"], m["metadata"]["name"]) for m in render(*values).manifests]
        assert len(made) == len(set(made))


def test_versions_are_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    images = {
        container["image"]
        for pod in render(LEAST).pods().values()
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
    }
    own = {image for image in images if image.startswith("gpudev-")}
    assert own == {f"gpudev-{name}:{version}" for name in ("hub", "service", "singleuser")}


def test_no_image_may_change_under_its_name() -> None:
    for values in OPTIONS.values():
        for name, pod in render(*values).pods().items():
            for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
                tag = container["image"].rpartition(":")[2]
                assert "/" not in tag, f"{name}: {container['image']} has no tag"
                assert tag != "latest", name


def test_the_database_is_where_it_is_said_to_be() -> None:
    def source(*values: dict[str, Any]) -> tuple[str, str]:
        pod = render(*values).pods()["Deployment/gpudev"]
        environment = {e["name"]: e for e in pod["spec"]["containers"][0]["env"]}
        reference = environment["GPUDEV_DB_URL"]["valueFrom"]["secretKeyRef"]
        return reference["name"], reference["key"]

    assert source(LEAST) == ("database", "url")
    assert source(URL) == ("gpudev", "db-url")
    assert source(TRIAL) == ("gpudev-database", "url")


def test_a_password_stands_in_secrets_only() -> None:
    rendered = render(URL)
    assert "secret@db" not in yaml.safe_dump(
        [m for m in rendered.manifests if m["kind"] != "Secret"]
    )


def test_migrations_run_before_an_upgrade_and_where_the_database_is_there() -> None:
    assert "gpudev-migrate" in render(LEAST).names("Job")
    assert "gpudev-migrate" in render(LEAST, upgrade=True).names("Job")
    # The trial database comes with the release itself.
    assert "gpudev-migrate" not in render(TRIAL).names("Job")
    assert "gpudev-migrate" in render(TRIAL, upgrade=True).names("Job")


def test_what_a_hook_reads_is_a_hook_itself_and_comes_before_it() -> None:
    """A release's own objects are not there yet when its first hooks run."""
    for values in (LEAST, URL):
        rendered = render(values)
        for job in rendered.all("Job"):
            hook = job["metadata"]["annotations"]["helm.sh/hook"]
            spec = job["spec"]["template"]["spec"]
            wanted = {("ServiceAccount", spec.get("serviceAccountName"))}
            for volume in spec["volumes"]:
                wanted.add(("Secret", volume.get("secret", {}).get("secretName")))
                wanted.add(("ConfigMap", volume.get("configMap", {}).get("name")))
            for kind, name in wanted:
                if name is None:
                    continue
                notes = rendered.one(kind, name)["metadata"]["annotations"]
                assert notes["helm.sh/hook"] == hook
                own = int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
                assert int(notes["helm.sh/hook-weight"]) < own


def test_a_changed_configuration_starts_the_service_anew() -> None:
    def checksum(*values: dict[str, Any]) -> str:
        pod = render(*values).pods()["Deployment/gpudev"]
        found: str = pod["metadata"]["annotations"]["checksum/config"]
        return found

    other = {"policy": {"default": {"max_hours": 3}}}
    assert checksum(LEAST) == checksum(LEAST, {"monitoring": {"monitor": "pod"}})
    assert checksum(LEAST) != checksum(LEAST, other)


def test_the_hub_knows_the_service_by_the_address_that_it_has() -> None:
    rendered = render(LEAST)
    service = rendered.one("Service", "gpudev")
    values = rendered.values()
    assert values["hub"]["services"]["gpudev"]["url"] == (
        f"http://gpudev:{service['spec']['ports'][0]['port']}"
    )
    keys = set(rendered.one("Secret", "hub")["data"])
    assert {f"hub.services.{n}.apiToken" for n in ("gpudev", "gpudev-spawner")} <= keys
    compile(values["hub"]["extraConfig"]["10-gpudev"], "10-gpudev", "exec")


def test_a_base_url_reaches_every_part() -> None:
    rendered = render(LEAST, {"jupyterhub": {"hub": {"baseUrl": "/jupyter"}}})
    container = rendered.pods()["Deployment/gpudev"]["spec"]["containers"][0]
    environment = {e["name"]: e.get("value") for e in container["env"]}
    assert environment["JUPYTERHUB_API_URL"] == "http://hub:8081/jupyter/hub/api"
    assert environment["JUPYTERHUB_SERVICE_PREFIX"] == "/jupyter/services/gpudev/"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert path.startswith("/jupyter/services/gpudev/api/v1/health")


def test_one_service_ends_before_the_next_begins() -> None:
    spec = render(LEAST).one("Deployment", "gpudev")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_replicas_are_replaced_one_after_the_other_and_know_each_other() -> None:
    rendered = render(LEAST, REPLICAS)
    spec = rendered.one("Deployment", "gpudev")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = spec["template"]["spec"]
    [spread] = pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= (
        spec["template"]["metadata"]["labels"].items()
    )
    environment = {each["name"]: each for each in pod["containers"][0]["env"]}
    host = environment["GPUDEV_REPLICA_HOST"]["valueFrom"]
    assert host == {"fieldRef": {"fieldPath": "status.podIP"}}
    probe = pod["containers"][0]["readinessProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] + probe["timeoutSeconds"] <= 5
    budget = rendered.one("PodDisruptionBudget", "gpudev")["spec"]
    assert budget["maxUnavailable"] == 1
    alone = render(LEAST).pods()["Deployment/gpudev"]["spec"]
    names = {each["name"] for each in alone["containers"][0]["env"]}
    assert "GPUDEV_REPLICA_HOST" not in names

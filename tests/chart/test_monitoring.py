"""Dashboard and alerts ask for metrics that the service has, by labels that these have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gpudev_service.api.metrics import Metrics
from tests.chart.rendering import CHART, LEAST, render

_SAMPLE = re.compile(r"\b(gpudev_[a-z_]+)(\{[^}]*\})?")
_BY = re.compile(r"\bby \(([a-z_, ]+)\)")
_LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")


def metrics() -> dict[str, set[str]]:
    """The names that Prometheus sees, and the labels of each."""
    collectors: dict[str, Any] = dict(Metrics().registry._names_to_collectors)
    return {name: set(each._labelnames) for name, each in collectors.items()}


def dashboard() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
    return parsed


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str, str]]:
    """(where, expression, texts that name labels)."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for rule in rules():
        yield rule["alert"], rule["expr"], json.dumps(rule["annotations"])


@pytest.mark.parametrize(("where", "expression", "texts"), expressions())
def test_it_asks_for_what_there_is(where: str, expression: str, texts: str) -> None:
    known = metrics()
    asked = _SAMPLE.findall(expression)
    assert asked, where
    labels = {"le"} if "histogram_quantile" in expression else set()
    for name, selector in asked:
        assert name in known, f"{where}: {name}"
        labels |= known[name]
        assert set(re.findall(r"([a-z_]+)\s*[=!]", selector)) <= known[name], where
    named = {each.strip() for by in _BY.findall(expression) for each in by.split(",")}
    assert named <= labels, where
    shown = set(_LEGEND.findall(texts)) - {"value"}
    assert shown <= named, f"{where}: {shown - named} is gone after the sum"


def test_a_wrong_metric_would_be_found() -> None:
    with pytest.raises(AssertionError, match="gpudev_leases_late"):
        test_it_asks_for_what_there_is("here", "max(gpudev_leases_late)", "")


def test_the_loops_that_alerts_leave_out_are_loops() -> None:
    from gpudev_service.loops import LOOPS

    left_out = re.findall(r'loop!~"([^"]+)"', "".join(rule["expr"] for rule in rules()))
    assert {name for each in left_out for name in each.split("|")} <= set(LOOPS)


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert place["x"] + place["w"] <= 24


@pytest.mark.chart
@pytest.mark.parametrize(
    ("monitor", "kind", "ends"),
    [("pod", "PodMonitor", "podMetricsEndpoints"), ("service", "ServiceMonitor", "endpoints")],
)
def test_prometheus_finds_the_metrics_and_has_a_token(monitor: str, kind: str, ends: str) -> None:
    rendered = render(LEAST, {"monitoring": {"monitor": monitor, "labels": {"release": "prom"}}})
    made = rendered.one(kind, "gpudev")
    assert made["metadata"]["labels"]["release"] == "prom"
    (end,) = made["spec"][ends]
    assert end["path"] == "/services/gpudev/metrics"
    credentials = end["authorization"]["credentials"]
    assert credentials["key"] in rendered.one("Secret", credentials["name"])["data"]
    wanted = made["spec"]["selector"]["matchLabels"]
    labelled = (
        rendered.pods()["Deployment/gpudev"]["metadata"]["labels"]
        if monitor == "pod"
        else rendered.one("Service", "gpudev")["metadata"]["labels"]
    )
    assert wanted.items() <= labelled.items()
    # The Hub service with this token may read metrics, and nothing else.
    roles = rendered.values()["hub"]["loadRoles"]
    assert roles["gpudev-metrics"] == {"scopes": ["read:metrics"], "services": ["gpudev-metrics"]}


@pytest.mark.chart
def test_rules_and_dashboard_are_made_where_they_are_wanted() -> None:
    on = {"monitoring": {"rules": {"enabled": True}, "dashboard": {"enabled": True}}}
    rendered = render(LEAST, on)
    made = rendered.one("PrometheusRule", "gpudev")["spec"]["groups"]
    assert [rule["alert"] for rule in made[0]["rules"]] == [rule["alert"] for rule in rules()]
    shown = rendered.one("ConfigMap", "gpudev-dashboard")
    assert json.loads(shown["data"]["gpudev.json"]) == dashboard()
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    without = render(LEAST)
    assert not without.names("PrometheusRule")
    assert "gpudev-dashboard" not in without.names("ConfigMap")

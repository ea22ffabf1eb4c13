"""What cannot work is refused before anything is installed, in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import LEAST, template

pytestmark = pytest.mark.chart

#: What is set over the least that works, and what the refusal names.
BY_SCHEMA: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"gpuType": {}}, "gpuType"),
    "a misspelt value inside": ({"service": {"replica": 2}}, "replica"),
    "text for a number": ({"disks": {"sizeGb": "many"}}, "sizeGb"),
    "no disk": ({"disks": {"sizeGb": 0}}, "sizeGb"),
    "no service": ({"service": {"replicas": 0}}, "replicas"),
    "a crowd of services": ({"service": {"replicas": 4}}, "replicas"),
    "a file as a database": ({"database": {"url": "sqlite:///f"}}, "url"),
    "another database": ({"database": {"url": "mysql://h/d"}}, "url"),
    "an address that is no address": (
        {"networkPolicy": {"users": {"blockedCidrs": ["api.example.org"]}}},
        "blockedCidrs",
    ),
    "an unknown monitor": ({"monitoring": {"monitor": "nagios"}}, "monitor"),
    "an unknown class of traits": ({"config": {"GpuDevs": {}}}, "GpuDevs"),
    "a public address without a scheme": ({"publicUrl": "hub.example.org"}, "publicUrl"),
    "a volume without a unit": ({"database": {"trial": {"storage": {"size": "5 GB"}}}}, "size"),
    "a time that is text": ({"times": {"turnover": "long"}}, "turnover"),
    "a wrong value of z2jh's": ({"jupyterhub": {"hub": {"baseURL": "/x"}}}, "baseURL"),
}
BY_CHECK: dict[str, tuple[dict[str, Any], str]] = {
    "two databases": (
        {"database": {"trial": {"enabled": True}}},
        "existingSecret.name, database.trial",
    ),
    "no database": ({"database": {"existingSecret": {"name": ""}}}, "set: none"),
    "other names": ({"jupyterhub": {"fullnameOverride": "hub"}}, "fullnameOverride"),
    "another service": (
        {"jupyterhub": {"hub": {"services": {"gpudev": {"url": "http://x:1"}}}}},
        "services.gpudev.url",
    ),
    "a scheduler without its role": (
        {"jupyterhub": {"scheduling": {"userScheduler": {"enabled": True}}}},
        "userScheduler",
    ),
    "an image hook without its role": (
        {"jupyterhub": {"prePuller": {"hook": {"enabled": True}}}},
        "prePuller.hook",
    ),
    "Let's Encrypt without its role": (
        {"jupyterhub": {"proxy": {"https": {"enabled": True, "hosts": ["h"]}}}},
        "letsencrypt",
    ),
    "a culler beside the leases": ({"jupyterhub": {"cull": {"enabled": True}}}, "cull.enabled"),
    "homes beside the disks": (
        {"jupyterhub": {"singleuser": {"storage": {"type": "dynamic"}}}},
        "storage.type",
    ),
}


@pytest.mark.parametrize("what", [*BY_SCHEMA, *BY_CHECK])
def test_what_cannot_work_is_refused_by_name(what: str) -> None:
    values, named = {**BY_SCHEMA, **BY_CHECK}[what]
    said = template(LEAST, values)
    assert said.code != 0
    assert named in said.err


def test_a_refusal_says_what_would_be_accepted() -> None:
    assert "database.url, database.existingSecret.name or database.trial.enabled" in template().err

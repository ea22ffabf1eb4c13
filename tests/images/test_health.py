"""The health checks of the images, asked of what runs in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.fixtures.hub import RunningHub
from tests.tiers import ROOT
from tools.ports import free_ports

pytestmark = pytest.mark.hub


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """Under a base URL, which the images are not told."""
    with RunningHub(base_url="/jupyter/") as running:
        yield running


def healthy(image: str, port: int, **environment: str) -> bool:
    """What the image's check says of what listens at this port."""
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", text, re.MULTILINE)
    assert found
    there = f"127.0.0.1:{port}"
    command = [re.sub(r"127\.0\.0\.1:\d+", there, one) for one in json.loads(found[1])]
    assert there in command[-1]
    kept = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(command, env=kept, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def test_the_hubs(hub: RunningHub) -> None:
    assert healthy("hub", hub.ports.hub)


def test_the_services(hub: RunningHub) -> None:
    place = {"JUPYTERHUB_SERVICE_PREFIX": "/jupyter/services/gpudev/"}
    assert healthy("service", hub.ports.service, **place)
    assert not healthy("service", hub.ports.hub, **place)


def test_a_servers(hub: RunningHub) -> None:
    assert healthy("singleuser", hub.ports.hub)


@pytest.mark.parametrize("image", ["hub", "service", "singleuser"])
def test_where_nothing_listens_it_says_no(image: str) -> None:
    [port] = free_ports(1)
    assert not healthy(image, port)

"""The command against a whole service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, tzinfo
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpudev_client.cli.app import App
from gpudev_client.cli.root import gpu_dev

from .running import Running

Run = Callable[..., Result]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    # What the command shows does not depend on the database.
    return f"sqlite:///{tmp_path / 'cli.sqlite'}"


@pytest.fixture
def service(migrated_url: str, tmp_path: Path) -> Iterator[Running]:
    running = Running(migrated_url, tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def gpudev(service: Running, tmp_path: Path) -> Run:
    """Runs the command: `gpudev("list", "--all", user="grace", width=60)`."""

    def run(
        *arguments: str,
        user: str = "ada",
        token: str | None = None,
        width: int | None = None,
        env: dict[str, str] | None = None,
        text: str | None = None,
        zone: tzinfo = UTC,
    ) -> Result:
        environment = {
            "GPUDEV_URL": service.url,
            "GPUDEV_TOKEN": token or service.token(user),
            "GPUDEV_CONFIG": str(tmp_path / "config" / "config.json"),
        }
        app = App(now=service.clock.now, zone=zone, width=width)
        return CliRunner().invoke(
            gpu_dev, list(arguments), obj=app, env=environment | (env or {}), input=text
        )

    return run

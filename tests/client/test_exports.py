"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gpudev_client

#: What must not be loaded to show a help page.
HEAVY = {"httpx", "pydantic", "rich", "platformdirs", "asyncio", "ssl", "http.server"}


def test_the_public_surface_is_this() -> None:
    assert gpudev_client.__all__ == [
        "AsyncClient",
        "AsyncGpuDev",
        "AsyncListing",
        "AsyncReservationHandle",
        "Client",
        "ConfigError",
        "Conflict",
        "GpuDev",
        "GpuDevError",
        "InvalidInput",
        "Listing",
        "NotAllowed",
        "NotAuthenticated",
        "NotFound",
        "RefusalError",
        "RemoteError",
        "ReservationEnded",
        "ReservationHandle",
        "ServerFault",
        "State",
        "Timeouts",
        "TooManyRequests",
        "Unreachable",
        "WaitTimeout",
    ]
    assert sorted(gpudev_client._HOMES) == gpudev_client.__all__
    assert dir(gpudev_client) == gpudev_client.__all__


@pytest.mark.parametrize("name", gpudev_client.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(gpudev_client, name)
    assert found.__doc__
    assert found.__module__.startswith("gpudev_client.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Gpu'"):
        gpudev_client.Gpu  # noqa: B018


def test_sync_and_async_client_have_the_same_calls() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(gpudev_client.Client) == public(gpudev_client.AsyncClient)
    assert public(gpudev_client.GpuDev) == public(gpudev_client.AsyncGpuDev)
    assert public(gpudev_client.ReservationHandle) == public(gpudev_client.AsyncReservationHandle)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["reserve", "--help"], ["disk", "--help"], ["help", "disk", "list"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom gpudev_client.cli import main\n"
        f"sys.argv = ['gpu-dev', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: gpu-dev" in run.stdout
    loaded = set(run.stderr.split())
    assert "click" in loaded
    assert not HEAVY & loaded
    ours = {name for name in loaded if name.startswith("gpudev")}
    assert not {name for name in ours if name.startswith(("gpudev_service", "gpudev_spawner"))}
    # A module more is a decision, not an accident.
    assert len(loaded) < 220

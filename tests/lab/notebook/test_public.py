"""What a notebook sees of `gpudev_lab`, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gpudev_lab


def test_the_public_names_are_there() -> None:
    assert sorted(gpudev_lab.__all__) == [
        "Ending",
        "NotOnALease",
        "before_end",
        "endings",
        "lease",
        "widget",
    ]
    for name in gpudev_lab.__all__:
        assert callable(getattr(gpudev_lab, name))
    with pytest.raises(AttributeError, match="no attribute 'extend'"):
        _ = gpudev_lab.extend


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = {"jupyter_server", "httpx", "anywidget", "ipywidgets", "pynvml"}
    code = f"import gpudev_lab, sys; print(sorted({heavy!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["lease", "widget"])
def test_outside_of_a_lease_each_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUDEV_RESERVATION", raising=False)
    with pytest.raises(gpudev_lab.NotOnALease):
        getattr(gpudev_lab, name)()

"""Slurm beside the benchmarks: nobody is believed without munge, and nothing of it stays."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import slurm

MISSING = slurm.missing()
installed = pytest.mark.skipif(MISSING is not None, reason=f"not installed: {MISSING}")
PATIENCE = 30.0


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Slurm's directories come to lie: a short path, since sockets have room for no other."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def running(home: Path) -> list[str]:
    """The processes whose files lie there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF", "").startswith(f"{home}/"):
                found.append(process.name())
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue  # of another account, or ended; a zombie counts as ended
    return sorted(found)


def nothing_stays(home: Path) -> bool:
    """Slurm's helper for scripts ends by itself, a moment after slurmctld."""
    deadline = time.monotonic() + PATIENCE
    while running(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return not list(home.iterdir())


def asked(conf: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, "SLURM_CONF": str(conf)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("lacking", slurm.PROGRAMS)
def test_what_is_not_installed_is_named(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == lacking else f"/bin/{name}")
    said = slurm.missing()
    assert said is not None
    assert said.startswith(f"{lacking} (")
    assert "munge" in said


@installed
def test_jobs_get_nodes_by_munge_and_nothing_stays(home: Path) -> None:
    with slurm.Slurm(4) as controller:
        [conf] = home.glob("*/slurm.conf")
        words = asked(conf, "scontrol", "show", "config").stdout.split()
        assert {"auth/munge", "cred/munge", f"socket={conf.parent}/munge/socket"} <= set(words)
        assert {"munged", "slurmctld"} <= set(running(home))
        number = controller.submit_one(slurm.Job(1, 8, 10))
        controller.wait_until_all_run(PATIENCE)
        assert list(controller.begun()) == [number]
    assert nothing_stays(home)


@installed
def test_a_credential_of_another_key_is_refused(home: Path) -> None:
    with slurm.Slurm(1), slurm.Slurm(1):
        one, other = home.glob("*/slurm.conf")
        assert asked(one, "squeue").returncode == 0
        mixed = home / "slurm.conf"
        theirs = f"socket={other.parent}/munge/socket"
        mixed.write_text(re.sub("socket=.*", theirs, one.read_text()))
        assert asked(mixed, "squeue").returncode != 0
        assert "Invalid credential" in (one.parent / "slurmctld.log").read_text()
        mixed.unlink()
    assert nothing_stays(home)


@installed
def test_nothing_stays_of_one_that_does_not_start(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "slurmctld"
    broken.write_text("#!/bin/sh\necho broken; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match="slurmctld did not start:\nbroken"), slurm.Slurm(1):
        pass
    assert nothing_stays(home)


@installed
def test_a_path_too_long_for_a_socket_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = home / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(RuntimeError, match=r"munged did not start:(.|\n)*socket"), slurm.Slurm(1):
        pass
    assert nothing_stays(deep)

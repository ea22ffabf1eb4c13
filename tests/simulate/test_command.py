"""`gpudev simulate` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpudev_service.app import SimulateApp, main
from gpudev_service.store import migrate
from gpudev_service.store.engine import Store
from tests.fixtures.rows import HOUR, NOW, lease

CONFIGURATION = """\
c = get_config()
c.GpuDev.gpu_types = {"t4": {"gpus_per_node": 4, "cpus": 48, "memory_gb": 192}}
c.GpuDev.nodes = [{"name": "n1", "gpu_type": "t4"}, {"name": "n2", "gpu_type": "t4"}]
"""
#: Both nodes for two hours, half of them for one more behind that, and a job that never ran.
SWF = """\
; Version: 2.2
1 0 -1 7200 8 -1 -1 8 7200 -1 1 1 1 -1 -1 -1 -1 -1
2 60 -1 3600 4 -1 -1 4 3600 -1 1 2 1 -1 -1 -1 -1 -1
3 90 -1 -1 4 -1 -1 4 3600 -1 5 2 1 -1 -1 -1 -1 -1
"""


def gpudev(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpudev_service", "simulate", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an operator has a configuration and a trace."""
    (tmp_path / "gpudev_config.py").write_text(CONFIGURATION)
    (tmp_path / "week.swf").write_text(SWF)
    return tmp_path


def test_a_trace_is_replayed_on_the_nodes_of_the_configuration(folder: Path) -> None:
    ended = gpudev(folder, "--trace=week.swf")
    assert ended.returncode == 0, ended.stderr
    assert "Trace: week.swf, 2 requests in 1 day; left out: 1 never ran" in ended.stdout
    assert "Fleet: 2 nodes of t4, 8 GPUs" in ended.stdout
    lines = [line.split("  ") for line in ended.stdout.splitlines()]
    wait = next(line for line in lines if line[0] == "wait, mean")
    assert [word.strip() for word in wait[1:] if word.strip()] == ["59 min", "59 min"]


def test_another_policy_is_a_column_of_its_own(folder: Path) -> None:
    (folder / "short.json").write_text('{"default": {"max_hours": 1, "max_extension_hours": 0}}')
    ended = gpudev(folder, "--trace=week.swf", "--policy=short.json", "--json")
    assert ended.returncode == 0, ended.stderr
    results = {each["rules"]: each for each in json.loads(ended.stdout)["results"]}
    assert list(results) == ["gpudev", "gpudev, short", "Slurm's rules"]
    assert results["gpudev"]["came_again"] == 0
    assert results["gpudev, short"]["came_again"] == 1


def test_picture_and_trace_are_written(folder: Path) -> None:
    ended = gpudev(folder, "--synthetic=light", "--days=2", "--picture=a.svg", "--write=a.swf")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines() == ["Wrote a.svg.", "Wrote a.swf."]
    assert (folder / "a.svg").read_text().startswith("<svg")
    again = gpudev(folder, "--trace=a.swf", "--json")
    assert json.loads(again.stdout)["results"][0]["requests"] > 0, again.stderr


def test_the_history_of_the_service_is_replayed(folder: Path) -> None:
    url = f"sqlite:///{folder / 'gpudev.sqlite'}"

    async def fill() -> None:
        store = Store(url)
        await migrate.upgrade(store)
        async with store.transaction() as session:
            session.add(lease("a", state="expired", target="expired", ended_at=NOW + HOUR))
        await store.close()

    asyncio.run(fill())
    ended = gpudev(folder, "--history", f"--db-url={url}")
    assert ended.returncode == 0, ended.stderr
    assert "Trace: the history of this service, 1 request in 1 day" in ended.stdout
    empty = gpudev(folder, "--history", "--db-url=sqlite:///none.sqlite")
    assert empty.returncode == 2
    assert "there is no database none.sqlite" in empty.stderr
    assert not (folder / "none.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "What is to be replayed? One of --trace=FILE.swf"),
        (["--trace=week.swf", "--synthetic=light"], "What is to be replayed? One of"),
        (["--trace=week.swf", "--picture=a.png"], "a.png does not end with .svg"),
        (["--trace=week.swf", "--write=no/a.swf"], "no/a.swf cannot be written: No such file"),
        (["--trace=none.swf"], "none.swf cannot be read: No such file"),
        (["--trace=gpudev_config.py"], "gpudev_config.py, line 1: 18 fields make a job"),
        (["--synthetic=huge"], "'light', 'busy', 'full'"),
        (["--synthetic=light", "--fleet=t4"], "'t4' is no fleet. Accepted: TYPE=NODESxGPUS"),
        (["--synthetic=light", "--fleet=T4=2x4"], "'T4' is no name of a GPU type"),
        (["--synthetic=light", "--days=0"], "days"),
        (["--trace=week.swf", "--policy=none.json"], "there is no file none.json"),
        (["--trace=week.swf", "--policy=week.swf"], "week.swf is neither .json"),
        (["--trace=week.swf", "--policy=bad.json"], "bad.json: GpuDev.policy: default.max_hour"),
        (["--trace=week.swf", "--policy=gpudev_config.py"], "gpudev_config.py: has no policy"),
    ],
)
def test_what_cannot_work_is_said_with_what_is_accepted(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "bad.json").write_text('{"default": {"max_hour": 2}}')
    monkeypatch.chdir(folder)
    SimulateApp.clear_instance()  # traitlets keeps subcommands for the life of a process
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err

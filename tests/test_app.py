"""The command `gpudev`: configuration, its mistakes, and what it does besides serving."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from gpudev_service import server
from gpudev_service.app import BackupApp, GpuDevApp, LoopApp, MigrateApp, main
from gpudev_service.config import ConfigurationError, GpuDev, GpuDevWeb


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def gpudev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs the command in this process, in an empty directory and without a Hub."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("JUPYTERHUB_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str) -> Ended:
        code = 0
        for app in (MigrateApp, BackupApp, LoopApp, GpuDevApp):
            app.clear_instance()  # traitlets keeps subcommands for the life of a process
        try:
            main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    yield run
    root.handlers[:], root.level = handlers, level


def settings(**traits: Any) -> Any:
    return GpuDev(config=Config({"GpuDev": traits})).settings()


T4 = {"gpus_per_node": 4, "cpus": 48, "memory_gb": 192}


def test_traits_become_settings() -> None:
    found = settings(
        gpu_types={"t4": T4},
        nodes=[{"name": "n1", "gpu_type": "t4", "labels": {"rack": "7"}}],
        node_labels=["topology.kubernetes.io/zone"],
        policy={"default": {"max_gpus": 8}, "groups": {"lab": {"max_hours": 72}}},
        times={"warnings": [10]},
    )
    assert found.gpu_types["t4"].valid_counts == [1, 2, 3, 4]
    assert (found.nodes[0].name, found.nodes[0].labels) == ("n1", {"rack": "7"})
    assert [key for key in ("rack", "topology.kubernetes.io/zone") if found.offers_label(key)] == [
        "topology.kubernetes.io/zone"
    ]
    assert found.policy.of(()).max_gpus == 8
    assert found.policy.of(()).max_hours == 24, "what is not written keeps its default"
    assert found.policy.of(("lab",)).max_hours == 72
    assert found.times.warnings == (10,)
    assert found.data_dir.is_absolute()


def test_servers_find_the_service_at_the_public_address_unless_another_is_named() -> None:
    public = {"public_url": "https://hub.example.org/"}
    assert settings(**public).url_for_servers == "https://hub.example.org/services/gpudev"
    own = settings(**public, service_url="http://gpudev:10101/services/gpudev/")
    assert own.url_for_servers == "http://gpudev:10101/services/gpudev"


def test_replicas_find_each_other_where_they_listen_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_URL", "http://0.0.0.0:10101")
    assert GpuDevWeb().replica_url == "http://0.0.0.0:10101"
    monkeypatch.setenv("GPUDEV_REPLICA_HOST", "10.1.2.3")
    assert GpuDevWeb().replica_url == "http://10.1.2.3:10101"
    monkeypatch.setenv("GPUDEV_REPLICA_HOST", "fd00::7")
    assert GpuDevWeb().replica_url == "http://[fd00::7]:10101"


async def test_replicas_on_sqlite_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gpudev.sqlite'}"
    several = GpuDevWeb(replica_url="http://10.1.2.3:10101")
    with pytest.raises(ConfigurationError, match="replicas of the service share a PostgreSQL"):
        async with server.candidacy(url, several):
            pass
    async with server.candidacy(url, GpuDevWeb()) as lead:
        assert lead is None


def test_servers_and_disks_follow_a_fleet_of_kubernetes() -> None:
    def kinds(**traits: Any) -> tuple[str, str]:
        found = GpuDev(config=Config({"GpuDev": traits}))
        return found.servers, found.disks

    assert kinds() == ("local", "directories")
    assert kinds(fleet="kubernetes") == ("kubernetes", "volumes")
    assert kinds(fleet="kubernetes", disks="directories") == ("kubernetes", "directories")
    assert kinds(servers="kubernetes") == ("kubernetes", "volumes")


@pytest.mark.parametrize(
    "traits",
    [
        {"fleet": "kubernetes", "disks": "directories"},
        {"servers": "kubernetes", "disks": "directories"},
        {"servers": "local", "disks": "volumes"},
    ],
)
def test_disks_that_servers_cannot_have_are_refused(traits: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"GpuDev\.disks.*Accepted"):
        settings(**traits)


def kinds_of(**kubernetes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): {"kubernetes": made} for name, made in kubernetes.items()}


@pytest.mark.parametrize(
    "types",
    [
        kinds_of(h100={}, h100_profiling={"profiling": True}),
        kinds_of(h100={"node_selector": {"gpu": "h100"}}, h100_profiling={}),
        kinds_of(
            h100={"node_selector": {"gpu": "h100"}},
            h100_profiling={"node_selector": {"gpu": "h100", "pool": "b"}, "profiling": True},
        ),
        kinds_of(
            h100={"node_selector": {"gpu": "h100"}},
            other={"resource": ""},
            h100_profiling={"node_selector": {"pool": "b"}},
        ),
    ],
)
def test_two_types_of_the_same_gpus_are_refused(types: dict[str, Any]) -> None:
    message = (
        "'h100' and 'h100-profiling' would promise the same GPUs twice: .*nvidia.com/gpu.*Accepted"
    )
    with pytest.raises(ConfigurationError, match=message):
        settings(fleet="kubernetes", gpu_types=types)
    assert settings(gpu_types={name: T4 | one for name, one in types.items() if name != "other"})


def test_types_that_cannot_have_the_same_gpus_are_taken() -> None:
    h100 = {"node_selector": {"gpu": "h100", "pool": "a"}}
    types = kinds_of(
        h100=h100,
        h100_profiling={"node_selector": {"gpu": "h100", "pool": "b"}},
        h100_slice={**h100, "resource": "nvidia.com/mig-1g.10gb"},
        cpu={**h100, "resource": ""},
        cpu_large={"resource": ""},
    )
    assert len(settings(fleet="kubernetes", gpu_types=types).gpu_types) == 5


def test_what_the_nodes_have_may_be_left_out_on_kubernetes_but_not_where_they_are_to_come() -> None:
    found = settings(gpu_types={"h100": {"kubernetes": {}}}, namespace="lab").gpu_types["h100"]
    assert found.kubernetes.resource == "nvidia.com/gpu"
    coming = {"scale_up": {"max_nodes": 2, "minutes": 5}}
    with pytest.raises(ConfigurationError, match="gpus_per_node is missing"):
        settings(gpu_types={"h100": {"kubernetes": coming}})
    assert settings(gpu_types={"h100": T4 | {"kubernetes": coming}})
    with pytest.raises(ConfigurationError, match="namespace"):
        settings(namespace="No Such")
    with pytest.raises(ConfigurationError, match="resource is missing"):
        settings(gpu_types={"h100": T4 | {"kubernetes": {"resource": ""}}})


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"gpu_types": {"t4": {**T4, "gpu": 4}}},
         r"GpuDev.gpu_types\['t4'\]: gpu is not known. Known there: label, description, gpus_per"),
        ({"gpu_types": {"t4": {"gpus_per_node": 4, "cpus": 48}}},
         r"GpuDev.gpu_types\['t4'\]: memory_gb is missing"),
        ({"gpu_types": {"t4": {**T4, "cpus": "many"}}},
         r"GpuDev.gpu_types\['t4'\]: cpus: .*valid integer.*\(it is 'many'\)"),
        ({"gpu_types": {"T4!": T4}}, r"GpuDev.gpu_types\['T4!'\]: name"),
        ({"gpu_types": {"t4": 4}}, r"GpuDev.gpu_types\['t4'\]"),
        ({"gpu_types": {"t4": T4}, "nodes": [{"name": "n1", "gpu_type": "a100"}]},
         "node n1: there is no GPU type 'a100'"),
        ({"gpu_types": {"t4": T4}, "nodes": [{"name": "n", "gpu_type": "t4"}] * 2}, "stands twice"),
        ({"policy": {"default": {"max_hour": 2}}}, "GpuDev.policy: default.max_hour is not known"),
        ({"policy": {"groups": {"lab": {"max_hours": -1}}}},
         "GpuDev.policy: groups.lab.max_hours: .*greater than 0"),
        ({"times": {"sweep": 0}}, "GpuDev.times: sweep: .*greater than 0"),
        ({"times": {"turnover": 5.9}},
         r"GpuDev.times: turnover: a server may take 6 s to end .* At least 6 \(it is 5.9\)"),
        ({"times": {"hub_patience": 20}}, r"GpuDev.times: turnover: .* At least 23 \(it is 15\)"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_trait_and_what_is_accepted(
    traits: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings(**traits)


def test_a_turnover_that_a_stop_fits_into_is_taken() -> None:
    assert settings(times={"turnover": 6}).times.turnover == 6
    assert settings(times={"turnover": 4, "hub_patience": 1}).times.longest_stop == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--GpuDev.disk_limit_gb=much"], "disk_limit_gb"),
        (["--GpuDev.gpu_type={}"], "GpuDev.gpu_type is not known. Known: data_dir, db_url"),
        (["--GpuDev.fleet=cloud"], "fleet"),
        (["--config=missing.py"], "there is no missing.py"),
        (["migrate", "--db-url=mysql://x/y"], "not a database that gpudev knows"),
        (["loop", "nonsense"], "NAME is one of expiry, starts"),
        (["backup"], "Usage: gpudev backup FILE"),
        ([], "JUPYTERHUB_API_TOKEN is not set"),
    ],
)
def test_a_configuration_that_cannot_work_ends_with_2(
    arguments: list[str], message: str, gpudev: Run
) -> None:
    ended = gpudev(*arguments)
    assert ended.code == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c = get_config()\nc.GpuDev.nodes = [", "line 2"),
        ("c = get_config()\nc.GpuDev.gpu_typs = {}", "GpuDev.gpu_typs is not known"),
        ("1 / 0", "ZeroDivisionError"),
        ("c = get_config()\nc.GpuDev.nodes = 3", "nodes"),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_place(text: str, message: str, gpudev: Run) -> None:
    Path("gpudev_config.py").write_text(text)
    ended = gpudev("migrate")
    assert ended.code == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_the_generated_file_has_every_trait_and_is_a_configuration(gpudev: Run) -> None:
    assert gpudev("--generate-config").code == 0
    text = Path("gpudev_config.py").read_text()
    for trait in GpuDev.class_trait_names(config=True):
        assert f"# c.GpuDev.{trait} = " in text
    again = gpudev("--generate-config")
    assert again.code == 2
    assert "left as it is" in again.err
    assert gpudev("migrate").code == 0
    assert "GpuDev.gpu_types" in gpudev("--help-all").out


def test_migrate_and_backup_without_a_hub(gpudev: Run) -> None:
    ended = gpudev("migrate")
    assert ended.code == 0, ended.err
    assert gpudev("migrate").code == 0
    ended = gpudev("backup", "copy.sqlite")
    assert ended.code == 0, ended.err
    with closing(sqlite3.connect("copy.sqlite")) as copy:
        assert copy.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
    assert gpudev("backup", "copy.sqlite", "--db-url=postgresql://h/x").code == 2


def test_a_loop_is_run_once(gpudev: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x" * 32)
    monkeypatch.setenv("JUPYTERHUB_API_URL", "http://127.0.0.1:9/hub/api")
    ended = gpudev("loop", "expiry")
    assert ended.code == 0, ended.err
    with closing(sqlite3.connect("gpudev-data/gpudev.sqlite")) as database:
        runs = database.execute("SELECT name, ok FROM loop_runs").fetchall()
    assert runs == [("expiry", 1)]


def test_a_command_that_is_not_known_is_refused_by_name(gpudev: Run) -> None:
    """It must not become another one: here, serving."""
    ended = gpudev("bogus")
    assert ended.code == 2
    assert "'bogus'" in ended.err
    assert "migrate" in ended.err

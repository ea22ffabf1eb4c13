"""The verbs against a whole service: what people have always typed, row by row."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import Result

from .conftest import Run
from .running import Running

pytestmark = pytest.mark.timeout(60)


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def read(result: Result) -> Any:
    return json.loads(ok(result))


def refused(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def test_the_acceptance_run(service: Running, gpudev: Run) -> None:
    assert "you are" in ok(gpudev("config", "check"))
    assert "8 of 8" in ok(gpudev("avail"))
    assert "No reservations" in ok(gpudev("list"))
    made = read(gpudev("reserve", "-t", "t4", "-g", "2", "-h", "0.5", "-n", "run 1", "--json"))
    assert (made["state"], made["hours"], made["gpus"]) == ("active", 0.5, 2)
    listed = ok(gpudev("list"))
    assert made["id"] in listed
    assert "2 x t4" in listed
    shown = ok(gpudev("show", made["id"][:4]))
    assert "30 min left, until 12:30" in shown
    assert "The server is running." in shown
    assert "Disk mine is there" in ok(gpudev("disk", "create", "mine"))
    assert "mine" in ok(gpudev("disk", "list"))
    assert "t4-1" in ok(gpudev("status"))
    assert "is being stopped" in ok(gpudev("cancel", made["id"], "--yes"))
    service.pass_time(seconds=5)
    assert read(gpudev("show", made["id"], "--json"))["state"] == "cancelled"
    assert "No reservations" in ok(gpudev("list"))
    for verb in ("edit", "connect", "reserve"):
        assert f"Usage: gpu-dev {verb}" in ok(gpudev("help", verb))
        assert f"Usage: gpu-dev {verb}" in ok(gpudev(verb, "--help"))


def test_half_an_hour_is_half_an_hour(service: Running, gpudev: Run) -> None:
    made = read(gpudev("reserve", "-t", "t4", "-h", "0.5", "--json"))
    span = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["starts_at"])
    assert span == timedelta(minutes=30)
    extended = read(gpudev("edit", "--extend", "0.25", "--json"))
    span = datetime.fromisoformat(extended["expires_at"]) - datetime.fromisoformat(
        made["starts_at"]
    )
    assert span == timedelta(minutes=45)
    assert "Extended by 15 min: 1 h left" in ok(gpudev("edit", "--extend", "0.25"))
    assert "more, until" in ok(gpudev("edit"))


def test_labels_of_nodes(gpudev: Run) -> None:
    made = read(gpudev("reserve", "-t", "t4", "-l", "rack=2", "--node-label", "rack=2", "--json"))
    assert made["node_labels"] == {"rack": "2"}
    assert [place["node"] for place in made["placement"]] == ["t4-2"]
    shown = ok(gpudev("show", made["id"]))
    assert re.search(r"node labels +rack=2\n", shown)
    assert "for nodes with rack=2" in shown
    other = refused(gpudev("reserve", "-t", "t4", "-l", "rack=3"))
    assert "No node of t4 has rack=3. There are: rack=1 or 2." in other


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["rack"], "takes KEY=VALUE"),
        (["-rack=1"], "takes KEY=VALUE"),
        (["rack=a b"], "no such value as 'a b'"),
        (["rack=1", "rack=2"], "no node has rack=1 and rack=2"),
    ],
)
def test_what_is_no_label_is_said_before_anything_is_asked(
    gpudev: Run, given: list[str], words: str
) -> None:
    options = [part for label in given for part in ("-l", label)]
    assert words in refused(gpudev("reserve", "-t", "t4", *options), code=2)


def test_waiting_in_the_queue(service: Running, gpudev: Run) -> None:
    service.reserve("grace", hours=2)
    queued = gpudev("reserve", "-t", "t4-small", "--no-wait")
    assert "next in the queue, starts at 14:01 at the latest" in ok(queued)
    assert "files in it are gone" in queued.stderr
    assert gpudev("connect").exit_code == 1
    status = ok(gpudev("status"))
    assert "Queue: 1 reservation" in status
    assert "grace" not in status
    assert re.search(r"somebody: 1 GPU, until 14:0[01]", status)


def test_of_a_long_queue_the_first_and_ones_own_are_shown(service: Running, gpudev: Run) -> None:
    for number in range(53):
        service.reserve(f"grace-{number}", hours=1)
    service.reserve(hours=1)
    status = ok(gpudev("status"))
    assert "Queue: 53 reservations" in status
    places = [int(place) for place in re.findall(r"^(\d+) +1 x t4-small", status, re.MULTILINE)]
    assert places == [*range(1, 51), 53]
    assert status.rstrip().endswith("and 2 more reservations for t4-small")


def test_what_is_in_the_way_is_told_in_the_viewers_zone(service: Running, gpudev: Run) -> None:
    service.reserve(hours=2)
    service.reserve("grace", hours=2)
    berlin = ZoneInfo("Europe/Berlin")
    way = re.compile(r"Somebody who waits has been promised 1 x t4-small from 15:0\d\.")
    assert way.search(refused(gpudev("edit", "--extend", "1", zone=berlin)))
    assert way.search(" ".join(ok(gpudev("edit", zone=berlin)).split()))
    raw = read(gpudev("show", "--json", zone=berlin))["extension"]["limited_by"]
    assert re.search(r"from 2026-03-01T14:0\dZ\.", raw)


def test_the_fleet_names_each_holder_of_a_node_once(service: Running, gpudev: Run) -> None:
    service.reserve("ada", "t4", gpus=2, hours=2)
    service.reserve("grace", "t4", gpus=4, hours=3)
    service.reserve("grace", "cpu-x86", hours=1)
    status = ok(gpudev("status"))
    assert re.findall(r"(?:you|somebody): .*? until \d\d:\d\d", status) == [
        "you: 2 GPUs, until 14:00",
        "somebody: 4 GPUs, until 15:00",
        "somebody: 1 share, until 13:00",
    ]


def test_no_wait_and_defaults_of_the_type(gpudev: Run) -> None:
    made = read(gpudev("reserve", "-t", "cpu-x86", "--no-wait", "--json"))
    assert (made["gpus"], made["disk"]) == (0, None)
    assert made["hours"] > 0


def test_disks_from_birth_to_return(service: Running, gpudev: Run) -> None:
    ok(gpudev("reserve", "-t", "t4", "-h", "1", "--disk", "work", "--create-disk"))
    in_use = refused(gpudev("disk", "delete", "work", "--yes"))
    assert "in use by the reservation" in in_use
    ok(gpudev("cancel", "--yes"))
    service.pass_time(seconds=5)
    assert "is being taken" in ok(gpudev("disk", "snapshot", "work", "--note", "before"))
    service.pass_time(seconds=5)
    snapshots = read(gpudev("disk", "snapshots", "work", "--json"))
    noted = [s for s in snapshots if s["note"] == "before"]
    assert noted[0]["state"] == "ready"
    identity = noted[0]["id"]
    assert "Nothing is in there" in ok(
        gpudev("disk", "list-content", "work", "--snapshot", identity[:6])
    )
    assert "Nothing is in there" in ok(
        gpudev("disk", "list-content", "work", "--snapshot", "latest")
    )
    assert "copy of work" in ok(gpudev("disk", "clone", "work", "copy", "--snapshot", identity))
    service.pass_time(seconds=5)
    assert "now called old" in ok(gpudev("disk", "rename", "copy", "old"))
    gone = ok(gpudev("disk", "delete", "old", "--yes"))
    assert "gpu-dev disk restore old" in gone
    assert "old" not in ok(gpudev("disk", "list"))
    assert "old" in ok(gpudev("disk", "list", "--deleted"))
    assert "is restored" in ok(gpudev("disk", "restore", "old"))
    assert "old" in ok(gpudev("disk", "list"))
    back = gpudev("disk", "restore", "work", "--snapshot", identity[:5], "--yes")
    assert "work" in ok(back)


def test_cancel_all(service: Running, gpudev: Run) -> None:
    ids = {service.reserve(gpu_type="t4") for _ in range(3)}
    foreign = service.reserve("grace", "h100")
    ended = read(gpudev("cancel", "--all", "--yes", "--json"))
    assert {r["id"] for r in ended} == ids
    assert read(gpudev("list", "--json", user="grace"))[0]["id"] == foreign
    service.pass_time(seconds=5)
    assert ok(gpudev("cancel", "--all", "--yes")) == "You have no live reservation.\n"


def test_which_one_is_meant(service: Running, gpudev: Run) -> None:
    assert "no live reservation" in refused(gpudev("show"))
    first = service.reserve(gpu_type="t4", name="first")
    assert first in ok(gpudev("show"))
    second = service.reserve(gpu_type="t4", name="second")
    several = refused(gpudev("show"))
    assert first in several
    assert second in several
    assert "first" in ok(gpudev("show", first[:4].upper()))
    assert "whose id begins with 'zzzzz'" in refused(gpudev("show", "zzzzz"))
    assert "at least 4" in refused(gpudev("show", first[:3]))


def test_others_reservations_are_not_there(service: Running, gpudev: Run) -> None:
    foreign = service.reserve("grace", "t4", name="grace's own")
    for verb in (["show"], ["cancel", "--yes"], ["edit", "--extend", "1"], ["connect"]):
        not_yours = refused(gpudev(verb[0], foreign, *verb[1:]))
        nowhere = refused(gpudev(verb[0], "zyxw0000zyxw0000", *verb[1:]))
        assert not_yours.replace(foreign, "ID") == nowhere.replace("zyxw0000zyxw0000", "ID")
        assert "grace" not in not_yours
    assert "grace" not in ok(gpudev("list", "-u", "*"))
    refused(gpudev("list", "-u", "grace"))


def test_admins_see_everybody(service: Running, gpudev: Run) -> None:
    one, two = service.reserve("ada", "t4"), service.reserve("grace", "t4")
    admin = service.admin()
    everybody = ok(gpudev("list", "-u", "*", token=admin))
    assert one in everybody
    assert two in everybody
    assert "grace" in everybody
    assert "of grace" in ok(gpudev("show", two[:5], token=admin))
    assert "grace: 1 GPU, until" in ok(gpudev("status", token=admin))


def test_states_filter(service: Running, gpudev: Run) -> None:
    ended = service.reserve(gpu_type="t4")
    ok(gpudev("cancel", "--yes", "--reason", "wrong type"))
    service.pass_time(seconds=5)
    live = service.reserve(gpu_type="t4")
    everything = ok(gpudev("list", "--all"))
    assert ended in everything
    assert live in everything
    only = ok(gpudev("list", "-s", "cancelled"))
    assert ended in only
    assert live not in only
    assert "wrong type" in ok(gpudev("show", ended))
    assert "cancelled already" in refused(gpudev("cancel", ended, "--yes"))
    refused(gpudev("list", "-s", "canceled"), 2)


def test_where_the_time_went(service: Running, gpudev: Run) -> None:
    service.reserve("grace", hours=1)
    mine = service.reserve("ada")
    service.pass_time(minutes=30)
    traced = read(gpudev("show", mine, "--trace", "--json"))
    assert [(s["state"], s["seconds"]) for s in traced["trace"]] == [("queued", 1800.0)]
    assert traced["history"][0]["state"] == "queued"
    assert "in the queue  30 min" in ok(gpudev("show", mine, "--trace"))


USAGE = (
    ["reserve"],
    ["reserve", "-t", "t4", "-h", "nan"],
    ["reserve", "-t", "t4", "-h", "-1"],
    ["reserve", "-t", "t4", "-g", "-1"],
    ["reserve", "-t", "t4", "-g", "2.5"],
    ["edit", "--extend", "0"],
    ["edit", "--extend", "inf"],
    ["cancel", "abcd0123", "--all"],
    ["cancel"],
    ["disk", "create", "../x"],
    ["disk", "rename", "a", "b/c"],
    ["disk", "restore", "a", "--at", "yesterday"],
    ["disk", "shred", "a"],
    ["config", "set", "colour", "red"],
    ["extent"],
    ["canc"],
    ["list", "--unknown"],
)


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_use_exits_with_2(service: Running, gpudev: Run, arguments: list[str]) -> None:
    service.reserve(gpu_type="t4")
    refused(gpudev(*arguments), 2)
    assert len(read(gpudev("list", "--all", "--json"))) == 1, "nothing else was done instead"
    assert read(gpudev("list", "--json")), "the reservation lives"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reserve", "-t", "t5", "-h", "1"], "h100"),
        (["reserve", "-t", "t4", "-g", "5", "-h", "1"], "1, 2, 3, 4, 8"),
        (["reserve", "-t", "t4", "-h", "1000"], "24"),
        (["reserve", "-t", "t4", "-h", "1", "--disk", "nowhere"], "nowhere"),
        (["reserve", "-t", "T 4", "-h", "1"], "gpu_type"),
        (["disk", "delete", "nowhere", "--yes"], "no such disk"),
        (["disk", "delete", "..", "--yes"], "no such disk"),
        (["disk", "list", "-u", "grace"], ""),
    ],
)
def test_a_refusal_exits_with_1_and_says_what_would_do(
    gpudev: Run, arguments: list[str], told: str
) -> None:
    assert told in refused(gpudev(*arguments))


@pytest.mark.parametrize(
    "arguments", [["show", "zzzzz"], ["reserve", "-t", "t4", "-g", "5", "-h", "1"]]
)
def test_a_refusal_fits_the_terminal(gpudev: Run, arguments: list[str]) -> None:
    result = gpudev(*arguments, width=40)
    assert len(result.stderr.splitlines()) > 1
    assert all(len(line) <= 40 for line in result.stderr.splitlines())


def test_a_mistyped_verb_is_told_the_nearest(gpudev: Run) -> None:
    assert "Did you mean 'cancel'" in refused(gpudev("cancle"), 2)
    assert "Did you mean 'list-content'" in refused(gpudev("disk", "list-contents", "x"), 2)
    assert "gpu-dev --help" in refused(gpudev("xyzzy"), 2)
    assert "no verb 'xyzzy'" in refused(gpudev("help", "xyzzy"), 2)


def test_a_token_that_is_not_known_any_more(gpudev: Run) -> None:
    assert "gpu-dev login" in refused(gpudev("list", token="revoked"))


def test_no_configuration(gpudev: Run) -> None:
    unset = {"GPUDEV_URL": "", "GPUDEV_TOKEN": ""}
    assert "gpu-dev login --url" in refused(gpudev("list", env=unset))
    assert "not set" in ok(gpudev("config", "show", env=unset))


def test_login_with_a_token(service: Running, gpudev: Run, tmp_path: Path) -> None:
    unset = {"GPUDEV_URL": "", "GPUDEV_TOKEN": ""}
    token = service.token("ada")
    hub = service.url.removesuffix("/services/gpudev")
    wrong = gpudev("login", "--url", hub, "--with-token", env=unset, text="wrong\n")
    assert "does not know" in refused(wrong)
    file = tmp_path / "config" / "config.json"
    assert not file.exists()
    done = gpudev("login", "--url", f"{hub}/hub/home", "--with-token", env=unset, text=f"{token}\n")
    assert f"You are ada at {service.url}." in ok(done)
    assert token not in done.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "No reservations" in ok(gpudev("list", env=unset))
    shown = gpudev("config", "show", env=unset)
    assert "configuration file" in ok(shown)
    assert token not in shown.output
    file.chmod(0o644)
    assert "chmod 600" in refused(gpudev("list", env=unset))


def test_config_set_keeps_tokens_apart(service: Running, gpudev: Run) -> None:
    unset = {"GPUDEV_URL": "", "GPUDEV_TOKEN": ""}
    token = service.token("ada")
    ok(gpudev("login", "--url", service.url, "--with-token", env=unset, text=token))
    elsewhere = gpudev("config", "set", "url", "https://elsewhere.example", env=unset)
    assert "https://elsewhere.example/services/gpudev" in ok(elsewhere)
    assert "gpu-dev login" in elsewhere.stderr
    assert "no token for https://elsewhere.example" in refused(gpudev("list", env=unset))
    ok(gpudev("config", "set", "url", service.url, env=unset))
    ok(gpudev("list", env=unset))
    refused(gpudev("config", "set", "url", "ftp://x", env=unset))


LISTINGS = (
    ["list", "-a"],
    ["list", "-a", "-u", "*"],
    ["show"],
    ["show", "--trace"],
    ["avail"],
    ["status"],
    ["disk", "list"],
    ["disk", "snapshots", "work"],
    ["config", "show"],
    ["config", "check"],
    ["edit"],
)


@pytest.fixture
def busy(service: Running) -> Running:
    """A service with something in every listing."""
    service.reserve(
        "ada", "t4-small", hours=2.5, disk="work", create_disk=True, name="a name " + "y" * 80
    )
    service.reserve("grace", "t4-small", hours=24)
    service.pass_time(minutes=10)
    with service.client() as client:
        client.take_snapshot("work", "a note that is long enough to need more than one line")
    service.pass_time(seconds=1)
    return service


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_wider_than_the_terminal(busy: Running, gpudev: Run, width: int) -> None:
    for arguments in LISTINGS:
        shown = ok(gpudev(*arguments, width=width))
        wide = [line for line in shown.splitlines() if len(line) > width and "://" not in line]
        # A file's path is a long word without a place to break it at.
        assert not wide, arguments
        whole = "".join(ok(gpudev(*arguments)).split())
        assert set(whole) <= set("".join(shown.split())) | set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_in_a_pipe_nothing_is_cut_or_coloured(busy: Running, gpudev: Run) -> None:
    [mine] = [r for r in read(gpudev("list", "--json")) if r["user"] == "ada"]
    line = next(line for line in ok(gpudev("list")).splitlines() if mine["id"] in line)
    assert mine["name"] in line
    for arguments in LISTINGS:
        assert "\x1b" not in ok(gpudev(*arguments))


JSON = (
    ["list"],
    ["list", "-a"],
    ["show"],
    ["show", "--trace"],
    ["avail"],
    ["status"],
    ["connect"],
    ["edit"],
    ["disk", "list"],
    ["disk", "snapshots", "work"],
    ["disk", "list-content", "work"],
    ["config", "show"],
    ["config", "check"],
)


@pytest.mark.parametrize("arguments", JSON, ids=" ".join)
def test_every_listing_has_json_with_times_in_utc(
    busy: Running, gpudev: Run, arguments: list[str]
) -> None:
    result = gpudev(*arguments, "--json", env={"TZ": "Asia/Kolkata"})
    found = read(result)
    assert found or found == []
    assert result.stderr == ""
    for key, value in _leaves(found):
        if key.endswith(("_at", "_until", "_start", "until")) and value is not None:
            assert value.endswith("Z"), (key, value)
            assert datetime.fromisoformat(value).utcoffset() == timedelta(0)


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, k)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item, key)]
    return [(key, value)]


def test_completion_scripts(gpudev: Run) -> None:
    for shell in ("zsh", "fish"):
        assert "_GPU_DEV_COMPLETE" in ok(gpudev("completion", shell))
    refused(gpudev("completion", "tcsh"), 2)


def test_a_defect_is_one_sentence(gpudev: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise KeyError("secret-internals")

    monkeypatch.setattr("gpudev_client.cli.reservations._listing", broken)
    told = refused(gpudev("list"))
    assert "KeyError" in told
    assert "secret-internals" not in told
    assert isinstance(gpudev("--debug", "list").exception, KeyError)


def test_the_zone_is_the_viewers(service: Running) -> None:
    """Through a process of its own: the zone belongs to the process."""
    import subprocess
    import sys

    made = service.reserve(gpu_type="t4", hours=2)
    environment = {
        **os.environ,
        "GPUDEV_URL": service.url,
        "GPUDEV_TOKEN": service.token("ada"),
        "TZ": "Asia/Kolkata",
    }
    run = subprocess.run(
        [sys.executable, "-c", "from gpudev_client.cli import main; main()", "show", made],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "17:30" in run.stdout  # 12:00 UTC
    assert "lease until" in run.stdout

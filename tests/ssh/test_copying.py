"""`gpu-dev submit`, and `exec`, `upload`, `download` of the SDK, on a real server."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import AsyncGpuDev, GpuDev, ignoring
from gpudev_client.cli.submit import place_name
from gpudev_client.errors import RemoteError
from gpudev_client.ignoring import Patterns
from gpudev_client.remote import Remote
from gpudev_client.ssh import config as ssh_config

from .laptop import GPUDEV
from .site import ID, Person, Site

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(240)]


@pytest.fixture
def agent(ada: Person, site: Site) -> Iterator[str]:
    """An agent with ada's key, since `ssh` looks for keys in the account's home directory."""
    path = ada.folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        site.until(path.exists, "the agent is there")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", str(ada.key)], env=environment, check=True)
        yield str(path)
    finally:
        process.terminate()
        process.wait()
        path.unlink(missing_ok=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "my project"
    (made / "data").mkdir(parents=True)
    (made / "data" / "in put.txt").write_text("3\n")
    (made / "train.sh").write_text(
        "#!/bin/sh\nread x < 'data/in put.txt'\necho $((x*2)) > out.txt\n"
    )
    (made / "train.sh").chmod(0o755)
    (made / "secret.key").write_text("not for the server\n")
    (made / ".gpudevignore").write_text("*.key\n/cache/\n")
    return made


NO_RSYNC = "tar"


@pytest.mark.parametrize("way", ["rsync", NO_RSYNC])
def test_a_folder_goes_up_runs_and_its_results_come_back(
    ada: Person, agent: str, site: Site, folder: Path, tmp_path: Path, way: str
) -> None:
    place = site.disk / "gpudev-submit" / place_name(folder)
    line = "./train.sh; mkdir -p cache deep; echo x > cache/big; echo y > deep/new; ls; exit 9"
    path = os.environ["PATH"] if way == "rsync" else _without_rsync(tmp_path)
    done = ada.gpudev("submit", "--on", ID, str(folder), "--", line, SSH_AUTH_SOCK=agent, PATH=path)
    assert done.returncode == 9, done.stderr
    assert b"train.sh" in done.stdout
    assert (folder / "out.txt").read_text() == "6\n"
    assert (folder / "deep" / "new").read_text() == "y\n"
    assert not (folder / "cache").exists()
    assert not (place / "secret.key").exists()
    assert os.access(place / "train.sh", os.X_OK)
    assert not list(folder.glob(".gpudev-*ed"))
    kept = ada.gpudev("submit", "--on", ID, "--no-pull", str(folder), "--", "echo", "a b", ">&2",
                      SSH_AUTH_SOCK=agent, PATH=path)  # fmt: skip
    assert (kept.returncode, kept.stdout) == (0, b"a b >&2\n")


def _without_rsync(folder: Path) -> str:
    """A PATH with what this needs, and no rsync."""
    import shutil

    programs = folder / "bin"
    programs.mkdir()
    for name in ("ssh", "git", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    return str(programs)


@pytest.mark.parametrize("way", ["rsync", NO_RSYNC])
def test_what_git_ignores_comes_back(
    ada: Person, agent: str, site: Site, tmp_path: Path, way: str
) -> None:
    """Checkpoints and outputs are ignored in every usual repository, and are the results."""
    top = tmp_path / f"repository {way}"
    (top / "outputs").mkdir(parents=True)
    (top / ".gitignore").write_text("*.pt\noutputs/\n")
    (top / "outputs" / "before").write_text("stays here")
    subprocess.run(["git", "init", "-q"], cwd=top, check=True)
    before = site.state()["cancelled"]
    path = os.environ["PATH"] if way == "rsync" else _without_rsync(tmp_path)
    line = "ls; mkdir outputs .git; echo 1 > a.pt; echo 2 > outputs/log; echo 3 > .git/x; mkfifo p"
    done = ada.gpudev("submit", "-t", "t4", "-h", "1", str(top), "--", line,
                      SSH_AUTH_SOCK=agent, PATH=path)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert (top / "a.pt").read_text() == "1\n"
    assert (top / "outputs" / "log").read_text() == "2\n"
    assert not (top / ".git" / "x").exists()
    assert site.state()["cancelled"] == before + 1


def _failing(folder: Path, name: str, when: str) -> str:
    """A PATH on which a program fails where its arguments have `when` in them."""
    import shlex
    import shutil

    programs = Path(_without_rsync(folder))
    (programs / name).unlink(missing_ok=True)
    real = shlex.quote(str(shutil.which(name)))
    test = f'case "$*" in *{shlex.quote(when)}*) echo cut off >&2; exit 255;; esac'
    (programs / name).write_text(f'#!/bin/sh\n{test}\nexec {real} "$@"\n')
    (programs / name).chmod(0o755)
    return str(programs)


@pytest.mark.parametrize("what", ["the listing", "rsync", "the connection", "the archive"])
def test_results_that_cannot_be_copied_keep_the_reservation(
    ada: Person, agent: str, site: Site, folder: Path, tmp_path: Path, what: str
) -> None:
    line = "echo 1 > precious"
    if what == "the listing":
        line, path = f"{line}; rm .gpudev-started", os.environ["PATH"]
    elif what == "rsync":
        path = _failing(tmp_path, "rsync", f":gpudev-submit/{place_name(folder)}/ ")
    elif what == "the connection":
        path = _failing(tmp_path, "ssh", "tar -cf")
    else:
        line, path = f"{line}; ln -s /etc/passwd away", _without_rsync(tmp_path)
    before = site.state()["cancelled"]
    done = ada.gpudev("submit", "-t", "t4", "-h", "1", str(folder), "--", line,
                      SSH_AUTH_SOCK=agent, PATH=path)  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert f"scp -r 'gpudev-{ID}:gpudev-submit/{place_name(folder)}' ." in said
    assert "the reservation is kept" in said
    assert "exit code 0" in said
    assert site.state()["cancelled"] == before
    assert (site.disk / "gpudev-submit" / place_name(folder) / "precious").exists()


def test_what_submit_cannot_do_is_said(ada: Person, agent: str, folder: Path) -> None:
    assert ada.gpudev("submit", str(folder)).returncode == 2
    assert ada.gpudev("submit", str(folder / "train.sh"), "--", "ls").returncode == 2
    missing = ada.gpudev("submit", "--on", ID, str(folder), "--", "/no/such", SSH_AUTH_SOCK=agent)
    assert missing.returncode == 127
    assert b"no new files" in missing.stderr


def test_submit_without_a_key_or_ssh_holds_no_gpus(
    ada: Person, site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wish = ("submit", "-t", "t4", "-h", "1", str(folder), "--", "ls")
    site.control(people={"ada": {**ada.entry, "keys": []}})
    unknown = ada.gpudev(*wish, SSH_AUTH_SOCK="agent")
    assert b"gpu-dev ssh-keys add" in unknown.stderr
    site.admit(ada)
    # The key that gpudev knows is on another machine.
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    assert not ssh_config.has_key({})
    assert ssh_config.has_key({"SSH_AUTH_SOCK": "agent"})
    path = _without_rsync(tmp_path)
    (tmp_path / "bin" / "ssh").unlink()
    without = ada.gpudev(*wish, SSH_AUTH_SOCK="agent", PATH=path)
    assert b"ssh is not installed here" in without.stderr
    for done in (unknown, without):
        assert done.returncode == 1
        assert b"Reservation" not in done.stderr


def test_two_folders_of_one_name_do_not_meet(
    ada: Person, agent: str, site: Site, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / folder.name
    other.mkdir(parents=True)
    (other / "own").write_text("of the other")
    before = site.state()["cancelled"]
    for top, line in ((folder, "ls; echo 1 > left"), (other, "ls")):
        done = ada.gpudev("submit", "--on", ID, str(top), "--", line, SSH_AUTH_SOCK=agent)
        assert done.returncode == 0, done.stderr
    assert done.stdout == b"own\n"
    again = ada.gpudev("submit", "--on", ID, str(folder), "--", "cat left", SSH_AUTH_SOCK=agent)
    assert again.stdout == b"1\n"
    assert site.state()["cancelled"] == before


def test_ignore_rules_that_are_not_utf8_are_named(ada: Person, site: Site, folder: Path) -> None:
    (folder / ".gpudevignore").write_bytes(b"*.key\n\xfcbung/\n")
    done = ada.gpudev("submit", "-t", "t4", "-h", "1", str(folder), "--", "ls")
    said = " ".join(done.stderr.decode().split())
    assert done.returncode == 1
    assert f"{folder / '.gpudevignore'}, line 2, is not UTF-8" in said
    assert "\\xfcbung/" in said
    assert "Reservation" not in said


def test_ignore_rules_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / ".gpudevignore").write_text("*.key\n", "utf-8-sig")
    assert "secret.key" not in ignoring.files(folder)


@contextlib.contextmanager
def _interrupted(
    ada: Person, agent: str, folder: Path, line: str, *, ready: Path, times: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that was begun, and then as many Ctrl-C as a terminal sends them: to all."""
    process = subprocess.Popen(
        [*GPUDEV, "submit", "--on", ID, str(folder), "--", line],
        env=ada.gpudev_environment(SSH_AUTH_SOCK=agent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stderr is not None
    try:
        ada.site.until(ready.exists, "the command runs")
        for number in range(times):
            os.killpg(process.pid, signal.SIGINT)
            while b"Ending the command" not in (said := process.stderr.readline()):
                assert said, f"ended after {number} interruptions"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_an_interruption_ends_the_command_over_there(
    ada: Person, agent: str, site: Site, folder: Path
) -> None:
    place = site.disk / "gpudev-submit" / place_name(folder)
    line = (
        "trap 'echo saving; echo 3 > checkpoint; kill $child; exit 1' INT; "
        "sleep 1000 & child=$!; echo $$ > running; wait"
    )
    ready = place / "running"
    with _interrupted(ada, agent, folder, line, ready=ready, times=1) as process:
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"saving" in out
    assert (folder / "checkpoint").read_text() == "3\n"
    assert not psutil.pid_exists(int((folder / "running").read_text()))
    assert not (place / ".gpudev-running").exists()


def test_a_command_that_does_not_listen_is_ended_by_force(
    ada: Person, agent: str, site: Site, folder: Path
) -> None:
    place = site.disk / "gpudev-submit" / place_name(folder)
    line = "trap '' INT TERM; echo $$ > stubborn; while :; do sleep 0.1; done"
    ready = place / "stubborn"
    with _interrupted(ada, agent, folder, line, ready=ready, times=3) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    stubborn = int((folder / "stubborn").read_text())
    site.until(lambda: not psutil.pid_exists(stubborn), "it has ended")


def test_programs_and_files_from_python(
    ada: Person, agent: str, site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    monkeypatch.setenv("GPUDEV_CONFIG", str(ada.config))
    with GpuDev(site.service, ada.token) as gpudev:
        r = gpudev.reservation(ID)
        said = r.exec("cat; echo $CUDA_VISIBLE_DEVICES >&2; exit 3", stdin="in")
        assert (said.exit_code, said.stdout, said.stderr) == (3, "in", "0,1\n")
        assert r.exec(["printf", "%s|", "a b", "$HOME", "'"]).stdout == "a b|$HOME|'|"
        assert r.upload(folder, "from python/x") == 3
        assert (site.disk / "from python" / "x" / "data" / "in put.txt").exists()
        assert r.upload(folder / "train.sh", "from python/") == 1
        assert r.upload(folder / "train.sh", "-dash") == 1
        assert (site.disk / "-dash").exists()
        assert r.download("from python", folder / "back") == 4
        assert (folder / "back" / "x" / "data" / "in put.txt").read_text() == "3\n"
        assert r.download("~/from python/train.sh", folder / "back") == 1
        r.exec("cd 'from python'; echo k > private; chmod 600 private; chmod 777 train.sh")
        assert r.download("from python/private", folder / "back") == 1
        assert (folder / "back" / "private").stat().st_mode & 0o777 == 0o600
        assert r.download("from python/train.sh", folder / "back") == 1
        assert (folder / "back" / "train.sh").stat().st_mode & 0o777 == 0o777 & ~_umask()
        with pytest.raises(RemoteError, match="There is no nothing"):
            r.download("nothing", folder)
        with pytest.raises(RemoteError, match="There is no file"):
            r.upload(folder / "nothing")
    assert ada.token not in site.log() + site.log("proxy")


def _umask() -> int:
    [told] = [line for line in Path("/proc/self/status").read_text().splitlines()
              if line.startswith("Umask:")]  # fmt: skip
    return int(told.split()[1], 8)


async def test_the_same_for_asyncio(
    ada: Person, agent: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    monkeypatch.setenv("GPUDEV_CONFIG", str(ada.config))
    (tmp_path / "one").write_text("1")
    async with AsyncGpuDev(site.service, ada.token) as gpudev:
        r = await gpudev.reservation(ID)
        assert await r.upload(tmp_path / "one", "async/") == 1
        assert (await r.exec("cat async/one")).stdout == "1"
        assert await r.download("async", tmp_path / "got") == 1


def test_a_server_that_names_files_elsewhere_is_not_believed(tmp_path: Path) -> None:
    remote = Remote(["ssh", "host"], {})
    for name in ("/etc/passwd", "../x", "a/../../x"):
        with pytest.raises(RemoteError, match="outside"):
            remote.fetch("x", [name], tmp_path)


# --- what stays behind ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [
        ["*.key", "/cache/", "!keep.key"],
        ["build/", "**/deep/*.o", "doc/*.txt"],
        ["a?c", "[xy]z", "foo/**", "# comment", "", "\\#odd"],
    ],
)
def test_rules_are_those_of_git(tmp_path: Path, rules: list[str]) -> None:
    names = ["a.key", "keep.key", "cache/x", "sub/cache/x", "build/o", "sub/build/o", "deep/a.o",
             "x/y/deep/a.o", "deep/a.c", "doc/a.txt", "doc/sub/a.txt", "abc", "sub/abc", "xz",
             "foo/a/b", "sub/foo/a", "#odd", ".hidden"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("\n".join(rules))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    by_git = set(ignoring.files(tmp_path))
    (tmp_path / ".gitignore").rename(tmp_path / ignoring.FILE)
    ours = set(ignoring.files(tmp_path))
    assert by_git - {".gitignore"} == ours - {ignoring.FILE}
    assert set(ignoring.returned(names, tmp_path)) == ours - {ignoring.FILE}


@given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=30))
def test_any_rule_can_be_read(rules: list[str], path: str) -> None:
    Patterns(rules).ignores(path, folder=False)

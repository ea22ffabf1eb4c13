"""Files by scp, sftp and rsync; ports by -L, -R and -D; and the steps that VS Code takes."""

from __future__ import annotations

import contextlib
import http.server
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.ports import free_ports

from .site import HOST, Person, Site

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(240)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with names and contents that are easily broken."""
    folder = tmp_path / "tree"
    (folder / "with space").mkdir(parents=True)
    (folder / "with space" / "ümläut $(x).bin").write_bytes(bytes(range(256)) * 1000)
    (folder / "empty").write_bytes(b"")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    return folder


def same(one: Path, other: Path) -> bool:
    def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.read_bytes())
            for path in folder.rglob("*")
            if path.is_file()
        }

    return listing(one) == listing(other)


def test_scp_there_and_back(ada: Person, site: Site, tree: Path, tmp_path: Path) -> None:
    up = ada.run("scp", "-q", "-p", "-r", *ada.options(), str(tree), f"{HOST}:by-scp")
    assert up.returncode == 0, up.stderr
    assert same(tree, site.disk / "by-scp")
    down = ada.run("scp", "-q", "-p", "-r", *ada.options(), f"{HOST}:by-scp", str(tmp_path / "b"))
    assert down.returncode == 0, down.stderr
    assert same(tree, tmp_path / "b")


def test_sftp_begins_in_the_home_directory(ada: Person, site: Site, tree: Path) -> None:
    steps = f"pwd\nmkdir by-sftp\nput -p {tree}/run by-sftp/run\nls by-sftp\n"
    done = ada.run("sftp", "-q", "-b", "-", *ada.options(), HOST, stdin=steps.encode())
    assert done.returncode == 0, done.stderr
    assert str(site.disk) in done.stdout.decode()
    assert (site.disk / "by-sftp" / "run").read_text() == "#!/bin/sh\n"


def test_rsync_there_again_and_back(ada: Person, site: Site, tree: Path, tmp_path: Path) -> None:
    by = shlex.join(["ssh", *ada.options()])
    for _ in range(2):
        up = ada.run("rsync", "-a", "--stats", "-e", by, f"{tree}/", f"{HOST}:by-rsync/")
        assert up.returncode == 0, up.stderr
    assert re.search(rb"Number of regular files transferred: 0", up.stdout)
    down = ada.run("rsync", "-a", "-e", by, f"{HOST}:by-rsync/", f"{tmp_path}/back/")
    assert down.returncode == 0, down.stderr
    assert same(tree, tmp_path / "back")


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"hello {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def web() -> Iterator[int]:
    """A web server on this machine, which is also the server's; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def get(sock: socket.socket, path: str) -> bytes:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    found = b""
    while piece := sock.recv(4096):
        found += piece
    return found.partition(b"\r\n\r\n")[2]


@contextlib.contextmanager
def forwarding(ada: Person, *options: str, command: str | None = None) -> Iterator[None]:
    tail = ["-N", HOST] if command is None else [HOST, command]
    process = subprocess.Popen(
        ada.command("-o", "ExitOnForwardFailure=yes", *options, *tail),
        env=ada.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


def connected(ada: Person, port: int) -> socket.socket:
    def there() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            return None

    found = ada.site.until(there, f"port {port} is open")
    assert isinstance(found, socket.socket)
    return found


@pytest.mark.parametrize("direction", ["-L", "-R"])
def test_a_port_of_the_other_side(ada: Person, web: int, direction: str) -> None:
    [port] = free_ports(1)
    with (
        forwarding(ada, direction, f"127.0.0.1:{port}:127.0.0.1:{web}"),
        connected(ada, port) as sock,
    ):
        assert get(sock, "/there") == b"hello /there"


def by_socks(ada: Person, socks: int, port: int) -> socket.socket:
    """A connection to 127.0.0.1:`port` of the server through the SOCKS5 proxy."""
    sock = connected(ada, socks)
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2) == b"\x05\x00"
    sock.sendall(b"\x05\x01\x00\x01" + bytes([127, 0, 0, 1]) + port.to_bytes(2, "big"))
    assert sock.recv(10)[:2] == b"\x05\x00"
    return sock


def test_any_port_of_the_other_side(ada: Person, web: int) -> None:
    [socks] = free_ports(1)
    with forwarding(ada, "-D", f"127.0.0.1:{socks}"), by_socks(ada, socks, web) as sock:
        assert get(sock, "/socks") == b"hello /socks"


def test_the_steps_of_an_editor(ada: Person, site: Site, tree: Path) -> None:
    """What VS Code's Remote - SSH does: a shell without a terminal that reads its script from
    standard input and says where the server listens, the server's files copied up, a connection
    through the dynamic forward; and all of it again after the connection was lost."""
    upload = ada.run("scp", "-q", "-r", *ada.options(), str(tree), f"{HOST}:.editor-server")
    assert upload.returncode == 0, upload.stderr
    script = """
echo "id: start"
test -x "$HOME/.editor-server/run" && echo "files==ok=="
cd "$HOME/.editor-server" && exec 3>&1
python3 - <<'PY' &
import http.server, functools, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=".")
with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
    print(f"listeningOn=={server.server_address[1]}==", flush=True)
    server.serve_forever()
PY
echo "id: end"
wait
"""
    for _ in range(2):
        [socks] = free_ports(1)
        editor = subprocess.Popen(
            ada.command("-T", "-D", f"127.0.0.1:{socks}", HOST, "bash"),
            env=ada.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert editor.stdin is not None
        assert editor.stdout is not None
        try:
            editor.stdin.write(script.encode())
            editor.stdin.close()
            said = b""
            while not (found := re.search(rb"listeningOn==(\d+)==", said)):
                line = editor.stdout.readline()
                assert line, said
                said += line
            assert b"files==ok==" in said
            with by_socks(ada, socks, int(found[1])) as sock:
                assert get(sock, "/run") == b"#!/bin/sh\n"
        finally:
            editor.kill()
            editor.stdout.close()
            editor.wait(30)
        site.until(lambda: not site.state()["sessions"], "the session has ended")

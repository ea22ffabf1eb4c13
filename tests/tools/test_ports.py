"""Ports that are still free when a server comes back."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from tools import ports


def test_no_outgoing_connection_gets_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    narrow = tmp_path / "range"
    narrow.write_text("28000\t60999\n")
    monkeypatch.setattr(ports, "_OUTGOING", narrow)
    found = ports.free_ports(50)
    assert len(set(found)) == 50
    assert all(1024 < port < 28_000 for port in found)


def test_one_that_somebody_listens_at_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = taken.getsockname()[1]
        drawn = iter([there, 0])  # 0: whichever the kernel has
        monkeypatch.setattr(ports, "_FIRST", 0)
        monkeypatch.setattr(secrets, "randbelow", lambda _: next(drawn))
        assert ports.free_port() != there


def test_where_nothing_is_left_below_the_kernel_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wide = tmp_path / "range"
    wide.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_OUTGOING", wide)
    assert len(set(ports.free_ports(3))) == 3
    monkeypatch.setattr(ports, "_OUTGOING", tmp_path / "none")
    assert ports.free_port() < 30_000

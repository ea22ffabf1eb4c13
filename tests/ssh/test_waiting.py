"""What is said while a server is waited for."""

from __future__ import annotations

import pytest

from gpudev_client.ssh.waiting import EVERY, Progress

from .site import Person, Site

WHY = "The server is still starting."


def test_it_is_said_at_once_and_then_from_time_to_time() -> None:
    progress = Progress()
    told = {second: progress.next(WHY, float(second)) for second in range(100)}
    said = {second: one for second, one in told.items() if one is not None}
    assert list(said) == list(range(0, 100, int(EVERY)))
    assert said[0] == f"{WHY} Waiting; Ctrl-C ends it."
    assert said[15] == f"{WHY} Waited 15 s so far."
    assert said[75] == f"{WHY} Waited 1 min 15 s so far."


def test_a_change_is_said_at_once() -> None:
    progress = Progress()
    progress.next(WHY, 0.0)
    assert progress.next("It runs.", 3.0) == "It runs. Waited 3 s so far."
    assert progress.next("It runs.", 17.0) is None
    assert progress.next("It runs.", 18.0) is not None


@pytest.mark.ssh
@pytest.mark.timeout(240)
def test_the_connection_is_not_spoiled_by_it(ada: Person, site: Site) -> None:
    refusal = {"status": 409, "code": "server_not_ready", "message": WHY}
    site.control(refusal=refusal, refusals_left=2)
    done = ada.ssh("cat", stdin=b"as it was", fdpass=False)
    assert done.stdout == b"as it was"
    assert done.stderr.decode().strip() == f"gpu-dev: {WHY} Waiting; Ctrl-C ends it."

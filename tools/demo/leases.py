"""What becomes of running leases when the demo ends, and when it begins again.

A lease goes on by the clock whether the demo runs or not; its server, a process of the demo, does
not. So the demo says which leases go on when it ends, and at its next start it starts their servers
again: for the service they would be crashed ones, whose GPUs it gives back after a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import quote

import httpx

from gpudev_client import Client, GpuDevError, Timeouts, words
from gpudev_client.models import Reservation
from gpudev_client.states import WAITING, State
from gpudev_hub_config.secrets import secret

from .place import Place

#: The Hub service that stands for the demo.
NAME = "gpudev-demo"
#: Seconds: the service is on this machine, and somebody waits for the demo to end.
_TIMEOUTS = Timeouts(connect=2.0, read=5.0, total=5.0)
#: Seconds for the Hub's answer to a start; it gives one after ten, even if the server takes longer.
_START = 30.0


def token(place: Place) -> str:
    """The demo's own token at the Hub and the service."""
    return secret(place.hub_dir / "secrets", "demo_token")


def live(place: Place) -> list[Reservation]:
    """The reservations that hold GPUs or wait for them, of everybody.

    Raises:
        GpuDevError: the service does not say.
    """
    with Client(place.service_url, token(place), timeouts=_TIMEOUTS) as client:
        return client.reservations(user="*", states=[State.ACTIVE, State.PREPARING, *WAITING]).all()


def farewell(place: Place) -> str:
    """What to say about leases and queue when the demo is about to end; empty with neither."""
    try:
        found = live(place)
    except GpuDevError:
        return ""  # it did not come up far enough to have leases of this run
    running = [r for r in found if r.state not in WAITING]
    lines = []
    if running:
        lines.append("These leases go on, although their servers end with the demo:")
        lines += [f"  {_described(r)}" for r in running]
        lines.append(
            "The next start on the same data starts their servers again, if it comes before they "
            "end. Work that ran in them does not go on by itself; files on disks are kept."
        )
    waiting = len(found) - len(running)
    if waiting:
        lines.append(f"{words.counted(waiting, 'reservation')} in the queue: the place is kept.")
    return "\n".join(lines)


def resume(place: Place) -> str:
    """Starts the servers of leases that still run; returns what to say about it."""
    try:
        lost = [r for r in live(place) if r.state is State.ACTIVE]
    except GpuDevError as error:
        return f"Whether leases were still running could not be found out: {error}"
    if not lost:
        return ""
    return "\n".join(["Leases of the last time that still run:", *_start(place, lost)])


def _start(place: Place, leases: Sequence[Reservation]) -> list[str]:
    with (
        httpx.Client(
            base_url=f"{place.url}/hub/api/",
            headers={"Authorization": f"token {token(place)}"},
            trust_env=False,
            timeout=_START,
        ) as hub,
        ThreadPoolExecutor(4) as pool,
    ):
        said = pool.map(lambda lease: _start_one(hub, lease), leases)
        return [f"  {_described(lease)}: {text}" for lease, text in zip(leases, said, strict=True)]


def _start_one(hub: httpx.Client, lease: Reservation) -> str:
    """What became of one start; a server that has outlived the last demo is left as it is."""
    again = "start it again from the Hub's home page"
    owner, name = quote(lease.user, safe=""), quote(lease.server_name, safe="")
    try:
        user = hub.get(f"users/{owner}").raise_for_status().json()
        server = user.get("servers", {}).get(lease.server_name, {})
        if server.get("ready"):
            return "its server still runs"
        path = f"users/{owner}/servers/{name}" if name else f"users/{owner}/server"
        answer = hub.post(path, json={"reservation": lease.id})
    except (httpx.HTTPError, ValueError):
        return f"the Hub does not answer; {again}"
    if answer.is_success:
        return "its server is started again"
    return f"its server could not be started (status {answer.status_code}); {again}"


def _described(lease: Reservation) -> str:
    what = words.gpus(lease.gpus, lease.gpu_type, lease.nodes)
    until = lease.expires_at
    ends = f", until {words.moment(until, datetime.now(UTC))}" if until else ""
    return f"{lease.name} ({lease.user}, {what}{ends})"

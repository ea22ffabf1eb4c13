"""Every call of the REST API, each written once as a flow.

`_client` binds them to the sync and the async client. A function here says which route, which
request and which answer; how calls are repeated and refused is `_flow`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from . import errors, limits, models
from ._flow import body, fetch, following, invalid, params, segment
from ._steps import Call, Flow
from ._stream import STREAM_RETRY, follow
from .states import State

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Listed(Generic[M]):
    """A paginated list: the call and what its pages look like."""

    call: Call
    kind: type[models.Page[M]]


# --- service ----------------------------------------------------------------------------------


def health() -> Flow[models.Health]:
    """The service's own health; needs no token. Degraded is an answer, not an error."""
    return fetch(Call("GET", "/health"), models.Health)


def me() -> Flow[models.Me]:
    """Who the token stands for, and the limits that policy sets."""
    return fetch(Call("GET", "/me"), models.Me)


def cluster(queue: int | None = None) -> Flow[models.Cluster]:
    """All nodes, what runs where, and of each queue the first `queue` (50, at most 200) and as many
    of the caller's own behind them."""
    asked = params(limit=limits.PAGE_MAX, queue=queue)
    found = yield from fetch(Call("GET", "/cluster", asked), models.Cluster)
    nodes = {node.name: node for node in found.nodes}
    seen: set[str] = set()
    cursor = following(found.next_cursor, seen)
    while cursor is not None:
        asked = params(limit=limits.PAGE_MAX, queue=0, cursor=cursor)
        more = yield from fetch(Call("GET", "/cluster", asked), models.Cluster)
        # A fleet may change between two pages: a node may be on both, or on neither.
        nodes |= {node.name: node for node in more.nodes}
        cursor = following(more.next_cursor, seen)
    return found.model_copy(update={"nodes": list(nodes.values()), "next_cursor": None})


def exchange_login_code(code: str, verifier: str) -> Flow[models.CliToken]:
    """Trade the code of a browser login for a token; works once."""
    request = models.CliTokenRequest(code=code, verifier=verifier)
    return fetch(Call("POST", "/cli-tokens", body=body(request)), models.CliToken)


# --- capacity ---------------------------------------------------------------------------------


def gpu_types(user: str | None = None) -> Listed[models.GpuType]:
    """The GPU types, with the limits of the caller, or of `user` for who may reserve for them."""
    return Listed(Call("GET", "/gpu-types", params(user=user)), models.Page[models.GpuType])


def availability(
    hours: float | None = None, gpu_type: str | None = None, user: str | None = None
) -> Listed[models.Availability]:
    """Per type what is free, how many wait, and the earliest start for a lease of `hours`, with the
    limits of the caller, or of `user` for who may reserve for them."""
    query = params(hours=hours, gpu_type=gpu_type, user=user)
    return Listed(Call("GET", "/availability", query), models.Page[models.Availability])


def begin_maintenance(gpu_type: str, message: str) -> Flow[models.GpuType]:
    """Admins: no new leases of this type, with a message for those who ask."""
    request = models.MaintenanceRequest(message=message)
    return fetch(Call("PUT", _maintenance(gpu_type), body=body(request)), models.GpuType)


def end_maintenance(gpu_type: str) -> Flow[models.GpuType]:
    """Admins: leases of this type again."""
    return fetch(Call("DELETE", _maintenance(gpu_type)), models.GpuType)


def drain(node: str, reason: str) -> Flow[models.NodeView]:
    """Admins: nothing new on this node."""
    request = models.DrainRequest(reason=reason)
    return fetch(Call("PUT", _drain(node), body=body(request)), models.NodeView)


def undrain(node: str) -> Flow[models.NodeView]:
    """Admins: the node takes leases again."""
    return fetch(Call("DELETE", _drain(node)), models.NodeView)


# --- reservations -----------------------------------------------------------------------------


def plan(request: models.ReservationRequest) -> Flow[models.Plan]:
    """When and where a request would start; nothing is stored."""
    return fetch(Call("POST", "/plan", body=body(request)), models.Plan)


def reserve(
    request: models.ReservationRequest, *, idempotency_key: str | None = None
) -> Flow[models.Reservation]:
    """Submit a request. The same `idempotency_key` gives the same reservation."""
    call = Call("POST", "/reservations", body=body(request))
    return fetch(call, models.Reservation, key=idempotency_key)


def reservation(reservation_id: str) -> Flow[models.Reservation]:
    """One reservation as it stands now."""
    return fetch(Call("GET", _reservation(reservation_id)), models.Reservation)


def reservations(
    user: str | None = None, states: Collection[State | str] = ()
) -> Listed[models.Reservation]:
    """Reservations, newest first: the caller's own with those shared with them, another user's, or
    everybody's (`"*"`)."""
    query = params(user=user, state=[str(state) for state in states])
    return Listed(Call("GET", "/reservations", query), models.Page[models.Reservation])


def cancel(reservation_id: str, reason: str | None = None) -> Flow[models.Reservation]:
    """End a reservation: it leaves the queue, or its server is stopped and its GPUs are freed."""
    return fetch(
        Call("DELETE", _reservation(reservation_id), params(reason=reason)), models.Reservation
    )


def extension(reservation_id: str) -> Flow[models.ExtensionOffer]:
    """How far the lease could be extended now."""
    return fetch(Call("GET", f"{_reservation(reservation_id)}/extension"), models.ExtensionOffer)


def extend(
    reservation_id: str, hours: float, *, idempotency_key: str | None = None
) -> Flow[models.Reservation]:
    """Extend the lease by `hours`."""
    request = models.ExtensionRequest(hours=hours)
    call = Call("POST", f"{_reservation(reservation_id)}/extension", body=body(request))
    return fetch(call, models.Reservation, key=idempotency_key)


def history(reservation_id: str) -> Listed[models.HistoryEntry]:
    """What happened to a reservation, with reasons."""
    call = Call("GET", f"{_reservation(reservation_id)}/history")
    return Listed(call, models.Page[models.HistoryEntry])


def events(
    reservation_id: str | None = None,
    after: int | None = None,
    attempts: int | None = None,
    silence: float | None = None,
) -> Flow[None]:
    """Follow one reservation to its end, or everything that the caller may see without an end.

    The first events carry the present state. `after` resumes behind an event that is known. The
    stream is opened again after interruptions, `attempts` times in a row at most; 1 tells of the
    first. It counts as interrupted after `silence` seconds without a sign of life.
    """
    retry = STREAM_RETRY if attempts is None else replace(STREAM_RETRY, attempts=attempts)
    if reservation_id is None:
        return follow("/events", after=after, retry=retry, silence=silence)
    path = f"{_reservation(reservation_id)}/events"
    return follow(path, after=after, until_final=True, retry=retry, silence=silence)


def launch(reservation_id: str) -> Flow[models.ServerLaunch]:
    """Spawner: environment and home of a reservation's server."""
    return fetch(Call("GET", f"{_reservation(reservation_id)}/launch"), models.ServerLaunch)


def report_server(reservation_id: str, report: models.ServerReport) -> Flow[models.Reservation]:
    """Spawner: what became of a reservation's server."""
    call = Call("PUT", f"{_reservation(reservation_id)}/server", body=body(report))
    # Where a start stands can be said twice, and is said of every start.
    keyed = report.status not in {"starting", "running"}
    return fetch(call, models.Reservation, keyed=keyed)


# --- inside a lease ---------------------------------------------------------------------------


def invite(
    reservation_id: str,
    user: str,
    role: models.Role = "use",
    until: datetime | None = None,
) -> Flow[models.Reservation]:
    """Let another user of the Hub see the reservation (`view`) or also open its server (`use`);
    for somebody who is invited already, change that."""
    request = models.CollaboratorRequest(role=role, until=until)
    call = Call("PUT", _collaborator(reservation_id, user), body=body(request))
    return fetch(call, models.Reservation)


def uninvite(reservation_id: str, user: str) -> Flow[models.Reservation]:
    """Take an invitation back; whoever is connected is out within seconds."""
    return fetch(Call("DELETE", _collaborator(reservation_id, user)), models.Reservation)


def ssh_keys(user: str) -> Flow[models.SshKeys]:
    """A user's public SSH keys."""
    return fetch(Call("GET", _keys_of(user)), models.SshKeys)


def replace_ssh_keys(user: str, keys: Sequence[str]) -> Flow[models.SshKeys]:
    """Make these lines (as in a `.pub` file) a user's public SSH keys, in place of those before."""
    return _send_keys("PUT", user, keys)


def add_ssh_keys(keys: Sequence[str]) -> Flow[models.SshKeys]:
    """Add public SSH keys to the caller's; one that is there already takes the new comment."""
    return (yield from _send_keys("POST", (yield from _own_name()), keys))


def remove_ssh_key(which: str) -> Flow[models.SshKeys]:
    """Remove one of the caller's keys, by fingerprint or comment.

    Raises NotFound where none is called so, and InvalidInput where several are.
    """
    me = yield from _own_name()
    found = yield from ssh_keys(me)
    gone = [key.fingerprint for key in found.items if which in {key.fingerprint, key.comment}]
    if not gone:
        raise errors.NotFound("not_found", f"You have no SSH key {which!r}.", status=404)
    if len(gone) > 1:
        raise errors.InvalidInput(
            "invalid_input",
            f"{len(gone)} of your keys are called {which!r}; name one by its fingerprint.",
            accepted=gone,
            status=422,
        )
    return (
        yield from fetch(Call("DELETE", _keys_of(me), params(fingerprint=gone[0])), models.SshKeys)
    )


def ssh_access(reservation_id: str) -> Flow[models.SshAccess]:
    """A way into the reservation's server by SSH, good for one connection."""
    return fetch(Call("POST", f"{_reservation(reservation_id)}/ssh"), models.SshAccess)


def snapshot_lease(reservation_id: str, note: str | None = None) -> Flow[models.Snapshot]:
    """Begin a snapshot of the disk that the reservation uses."""
    request = models.SnapshotRequest(note=note)
    call = Call("POST", f"{_reservation(reservation_id)}/snapshot", body=body(request))
    return fetch(call, models.Snapshot)


def lab(reservation_id: str) -> Flow[models.LabView]:
    """The reservation's own server: all that it has to know."""
    return fetch(Call("GET", f"{_reservation(reservation_id)}/lab"), models.LabView)


def redeem_ssh_ticket(reservation_id: str, ticket: str) -> Flow[models.TicketHolder]:
    """The reservation's own server: whose ticket it is; once."""
    request = models.TicketRequest(ticket=ticket)
    call = Call("POST", f"{_reservation(reservation_id)}/ssh-tickets", body=body(request))
    return fetch(call, models.TicketHolder)


def report_ssh_host(reservation_id: str, report: models.SshHostReport) -> Flow[models.Reservation]:
    """The reservation's own server: how it is reached by SSH."""
    call = Call("PUT", f"{_reservation(reservation_id)}/ssh-host", body=body(report))
    return fetch(call, models.Reservation)


def report_closing(reservation_id: str, report: models.ClosingReport) -> Flow[models.Reservation]:
    """The reservation's own server: what was saved before the lease's end."""
    call = Call("POST", f"{_reservation(reservation_id)}/closing", body=body(report))
    return fetch(call, models.Reservation)


def report_activity(reservation_id: str, report: models.ActivityReport) -> Flow[models.Reservation]:
    """A reservation's server: what goes on in it. The answer's `idle` is the verdict."""
    call = Call("PUT", f"{_reservation(reservation_id)}/activity", body=body(report))
    return fetch(call, models.Reservation)


def keep(reservation_id: str) -> Flow[models.Reservation]:
    """Keep a lease that looks idle, within the limits of policy."""
    return fetch(Call("POST", f"{_reservation(reservation_id)}/keep"), models.Reservation)


# --- disks ------------------------------------------------------------------------------------


def disks(user: str | None = None, *, deleted: bool = False) -> Listed[models.Disk]:
    """Disks; with `deleted` those that can still be restored."""
    return Listed(
        Call("GET", "/disks", params(user=user, deleted=deleted)), models.Page[models.Disk]
    )


def disk(name: str, user: str | None = None) -> Flow[models.Disk]:
    """One disk."""
    return fetch(Call("GET", _disk(name), params(user=user)), models.Disk)


def create_disk(
    name: str, user: str | None = None, size_gb: int | None = None
) -> Flow[models.Disk]:
    """A new, empty disk; with a size where disks have sizes of their own."""
    request = models.DiskRequest(name=name, size_gb=size_gb)
    return fetch(Call("POST", "/disks", params(user=user), body(request)), models.Disk)


def rename_disk(name: str, new_name: str, user: str | None = None) -> Flow[models.Disk]:
    """Give a disk another name."""
    request = models.DiskChange(name=new_name)
    return fetch(Call("PATCH", _disk(name), params(user=user), body(request)), models.Disk)


def resize_disk(name: str, size_gb: int, user: str | None = None) -> Flow[models.Disk]:
    """Make a disk larger, where disks have sizes of their own."""
    request = models.DiskChange(size_gb=size_gb)
    return fetch(Call("PATCH", _disk(name), params(user=user), body(request)), models.Disk)


def delete_disk(name: str, user: str | None = None) -> Flow[models.Disk]:
    """Delete a disk; it can be restored until `purged_after`."""
    return fetch(Call("DELETE", _disk(name), params(user=user)), models.Disk)


def restore_disk(
    name: str,
    snapshot: str | None = None,
    at: datetime | None = None,
    user: str | None = None,
) -> Flow[models.Disk]:
    """Undo a deletion, or put a disk back to a snapshot (by id, or the newest one until `at`)."""
    request = models.RestoreRequest(snapshot=snapshot, at=at)
    call = Call("POST", f"{_disk(name)}/restoration", params(user=user), body(request))
    return fetch(call, models.Disk)


def clone_disk(
    name: str,
    new_name: str,
    snapshot: str | None = None,
    at: datetime | None = None,
    user: str | None = None,
) -> Flow[models.Disk]:
    """A new disk from a disk's present state or from one of its snapshots."""
    request = models.CloneRequest(name=new_name, snapshot=snapshot, at=at)
    call = Call("POST", f"{_disk(name)}/clones", params(user=user), body(request))
    return fetch(call, models.Disk)


def snapshots(name: str, user: str | None = None) -> Listed[models.Snapshot]:
    """A disk's snapshots."""
    call = Call("GET", f"{_disk(name)}/snapshots", params(user=user))
    return Listed(call, models.Page[models.Snapshot])


def take_snapshot(
    name: str, note: str | None = None, user: str | None = None
) -> Flow[models.Snapshot]:
    """Begin a snapshot; its `state` says when it is ready."""
    request = models.SnapshotRequest(note=note)
    call = Call("POST", f"{_disk(name)}/snapshots", params(user=user), body(request))
    return fetch(call, models.Snapshot)


def disk_contents(
    name: str,
    path: str = "",
    snapshot: str | None = None,
    user: str | None = None,
) -> Listed[models.DiskEntry]:
    """The names in one directory of a disk, or of one of its snapshots."""
    query = params(snapshot=snapshot, path=path or None, user=user)
    return Listed(Call("GET", f"{_disk(name)}/contents", query), models.DiskContents)


def _reservation(reservation_id: str) -> str:
    return f"/reservations/{segment(reservation_id, 'reservation')}"


def _keys_of(user: str) -> str:
    return f"/users/{segment(user, 'user')}/ssh-keys"


def _send_keys(method: str, user: str, keys: Sequence[str]) -> Flow[models.SshKeys]:
    try:
        request = models.SshKeysRequest(keys=list(keys))
    except ValidationError as error:
        raise invalid(error) from error
    return fetch(Call(method, _keys_of(user), body=body(request)), models.SshKeys)


def _own_name() -> Flow[str]:
    return (yield from me()).name


def _collaborator(reservation_id: str, user: str) -> str:
    return f"{_reservation(reservation_id)}/collaborators/{segment(user, 'user')}"


def _disk(name: str) -> str:
    return f"/disks/{segment(name, 'disk')}"


def _maintenance(gpu_type: str) -> str:
    return f"/gpu-types/{segment(gpu_type, 'GPU type')}/maintenance"


def _drain(node: str) -> str:
    return f"/cluster/nodes/{segment(node, 'node')}/drain"

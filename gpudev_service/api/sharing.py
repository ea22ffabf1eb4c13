"""Collaborators of a reservation, and people's SSH keys.

Who may invite somebody to a reservation may know whether the Hub has a user of that name: without
it nobody could be found. To everybody else an unknown name and a known one answer alike.
"""

from __future__ import annotations

from gpudev_client.models import CollaboratorRequest, Reservation, SshKeys, SshKeysRequest
from gpudev_service.operations import keys, sharing

from .route import Access, Call, NoQuery, Route


async def invite(call: Call[NoQuery, CollaboratorRequest]) -> Reservation:
    user = call.path["user"]
    await call.service.people.groups_of_existing(user)
    return await sharing.invite(call.ctx, call.path["id"], user, call.body, call.actor)


async def remove(call: Call[NoQuery, None]) -> Reservation:
    return await sharing.remove(call.ctx, call.path["id"], call.path["user"], call.actor)


async def list_keys(call: Call[NoQuery, None]) -> SshKeys:
    return await keys.listing(call.ctx, call.path["user"])


async def replace_keys(call: Call[NoQuery, SshKeysRequest]) -> SshKeys:
    user = call.path["user"]
    if user != call.caller.name:
        await call.service.people.groups_of_existing(user)
    return await keys.replace(call.ctx, user, call.body.keys, call.actor)


ROUTES = (
    Route(
        "invite_collaborator",
        "PUT",
        "/reservations/{id}/collaborators/{user}",
        Access.RESERVATION_WRITE,
        invite,
        "Invite somebody whom the Hub knows, or change their role or the invitation's end.",
        body=CollaboratorRequest,
        answer=Reservation,
        errors=("wrong_state", "quota"),
    ),
    Route(
        "remove_collaborator",
        "DELETE",
        "/reservations/{id}/collaborators/{user}",
        Access.LEAVE,
        remove,
        "Take an invitation back. Collaborators can leave by themselves.",
        answer=Reservation,
    ),
    Route(
        "list_ssh_keys",
        "GET",
        "/users/{user}/ssh-keys",
        Access.PERSON_READ,
        list_keys,
        "A user's public SSH keys.",
        answer=SshKeys,
    ),
    Route(
        "replace_ssh_keys",
        "PUT",
        "/users/{user}/ssh-keys",
        Access.PERSON_WRITE,
        replace_keys,
        "Replace a user's public SSH keys; running servers learn of it at once.",
        body=SshKeysRequest,
        answer=SshKeys,
    ),
)

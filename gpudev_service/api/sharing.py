"""Collaborators of a reservation, and people's SSH keys.

Who may invite somebody to a reservation may know whether the Hub has a user of that name: without
it nobody could be found. To everybody else an unknown name and a known one answer alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gpudev_client import limits
from gpudev_client.models import (
    CollaboratorRequest,
    Request,
    Reservation,
    SshKeys,
    SshKeysRequest,
)
from gpudev_service.operations import keys, sharing

from .route import Access, Call, NoQuery, Route


class KeyQuery(Request):
    """Which key. Not in the path: fingerprints have slashes, and some proxies decode those."""

    fingerprint: str = Field(
        min_length=1, max_length=limits.SSH_FINGERPRINT_MAX, description="As `ssh-keygen -l` says."
    )


async def invite(call: Call[NoQuery, CollaboratorRequest]) -> Reservation:
    user = call.path["user"]
    await call.service.people.groups_of_existing(user)
    return await sharing.invite(call.ctx, call.path["id"], user, call.body, call.actor)


async def remove(call: Call[NoQuery, None]) -> Reservation:
    return await sharing.remove(call.ctx, call.path["id"], call.path["user"], call.actor)


async def list_keys(call: Call[NoQuery, None]) -> SshKeys:
    return await keys.listing(call.ctx, call.path["user"])


async def replace_keys(call: Call[NoQuery, SshKeysRequest]) -> SshKeys:
    return await keys.replace(call.ctx, await _existing(call), call.body.keys, call.actor)


async def add_keys(call: Call[NoQuery, SshKeysRequest]) -> SshKeys:
    return await keys.add(call.ctx, await _existing(call), call.body.keys, call.actor)


async def added(call: Call[Any, Any], made: Mapping[str, list[str]]) -> SshKeys:
    return await keys.listing(call.ctx, call.path["user"])


async def remove_key(call: Call[KeyQuery, None]) -> SshKeys:
    return await keys.remove(call.ctx, call.path["user"], call.query.fingerprint, call.actor)


async def _existing(call: Call[NoQuery, SshKeysRequest]) -> str:
    """The user in the path, whom the Hub has."""
    user = call.path["user"]
    if user != call.caller.name:
        await call.service.people.groups_of_existing(user)
    return user


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
    Route(
        "add_ssh_keys",
        "POST",
        "/users/{user}/ssh-keys",
        Access.PERSON_WRITE,
        add_keys,
        "Add to a user's public SSH keys; one that is there already takes the new comment.",
        body=SshKeysRequest,
        answer=SshKeys,
        errors=("quota",),
        recall=added,
    ),
    Route(
        "remove_ssh_key",
        "DELETE",
        "/users/{user}/ssh-keys",
        Access.PERSON_WRITE,
        remove_key,
        "Remove one of a user's public SSH keys; one that is not there is gone already.",
        query=KeyQuery,
        answer=SshKeys,
    ),
)

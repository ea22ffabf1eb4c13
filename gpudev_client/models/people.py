"""People beside the owner: collaborators, and everybody's SSH keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from gpudev_client import limits

from .base import Answer, Request

#: `view`: sees the reservation. `use`: also opens its server, in the browser and by SSH.
Role = Literal["view", "use"]

SshKeyLine = Annotated[str, StringConstraints(min_length=1, max_length=limits.SSH_KEY_MAX)]


class SshKey(Answer):
    """A public key. `key` is the type and the key itself, without options and comment."""

    key: str
    type: str
    fingerprint: str
    comment: str = ""
    added_at: AwareDatetime


class SshKeys(Answer):
    items: list[SshKey]


class SshKeysRequest(Request):
    """Public keys, each as a line of a `.pub` file."""

    keys: list[SshKeyLine] = Field(max_length=limits.SSH_KEYS_MAX)


class Collaborator(Answer):
    """Somebody whom the owner has invited. `until` is None for an invitation that lasts as long as
    the lease."""

    user: str
    role: Role
    since: AwareDatetime
    until: AwareDatetime | None = None
    invited_by: str


class CollaboratorRequest(Request):
    """An invitation, or a change of one. `until` is None for as long as the lease."""

    role: Role = "use"
    until: AwareDatetime | None = None

"""Who may do what, written down a second time and independently of the service.

What a route is about is told from its method and path alone, never from what the route table says
of its access: a route whose access is loosened must not loosen what is expected of it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Everybody, without a token.
OPEN = {"/health", "/health/live", "/openapi.json", "/cli-tokens"}

#: Told by how the address ends.
ENDINGS = {
    "/launch": "launch",
    "/server": "launch",
    "/drain": "administrate",
    "/maintenance": "administrate",
}

#: What each level lets its holder do with the things of an owner.
LEVELS: dict[str, set[str]] = {
    "nothing": set(),
    "read": {"see", "see disks"},
    "server": {"see", "change"},
    "reserve": {"see", "change", "reserve", "see disks", "change disks"},
    "spawner": {"see", "change", "reserve", "see disks", "launch"},
    "admin": {"see", "change", "reserve", "see disks", "change disks", "launch", "administrate"},
}


@dataclass(frozen=True)
class Role:
    """A kind of caller: what they are to ada's things and to sam's. `known` is False for callers
    whom the Hub does not vouch for, `scoped` for those who hold any scope of gpudev."""

    name: str
    on_ada: str = "nothing"
    on_sam: str = "nothing"
    known: bool = True
    scoped: bool = True

    def level(self, owner: str) -> set[str]:
        return LEVELS[{"ada": self.on_ada, "sam": self.on_sam}.get(owner, "nothing")]

    @property
    def anywhere(self) -> set[str]:
        """What the role can do with anybody's things. A server that is not here any more would be
        the other server's own."""
        own = LEVELS["server"] if self.name == "other server" else set()
        return LEVELS[self.on_ada] | LEVELS[self.on_sam] | own | self.elsewhere

    @property
    def elsewhere(self) -> set[str]:
        """What people may do with their own things, which no cell is about."""
        return LEVELS["reserve"] if self.name in {"collaborator", "removed collaborator"} else set()


ROLES = (
    Role("anonymous", known=False),
    Role("expired", known=False),
    Role("revoked", known=False),
    Role("no scope", scoped=False),
    Role("stranger", on_sam="reserve"),
    Role("collaborator"),
    Role("removed collaborator"),
    Role("owner", on_ada="reserve"),
    Role("reader", on_ada="read"),
    Role("own server", on_ada="server"),
    Role("other server"),
    Role("group admin", on_ada="reserve"),
    Role("spawner", on_ada="spawner", on_sam="spawner"),
    Role("admin", on_ada="admin", on_sam="admin"),
)


def about(method: str, path: str) -> str:
    """What a call needs, told from its address."""
    reading = method == "GET"
    if path in OPEN:
        return "open"
    for ending, need in ENDINGS.items():
        if path.endswith(ending):
            return need
    if path == "/plan" or (path == "/reservations" and not reading):
        return "reserve"
    if path.startswith("/reservations/{id}"):
        return "see" if reading else "change"
    if path.startswith("/disks"):
        return "see disks" if reading else "change disks"
    return "look"


def expected(role: Role, method: str, path: str, owner: str) -> int | None:
    """The status of the refusal, or None where the call must be let through. `owner` is "ada",
    "sam", or "absent" for things that are not there."""
    need = about(method, path)
    if need == "open":
        return None
    if not (role.known and role.scoped):
        return 403 if role.known else 401
    if need == "look" or _granted(role, need, owner):
        return None
    # Such a caller never could, whatever is there; or a person is named, not an object.
    if need not in role.anywhere or need == "reserve" or path == "/disks":
        return 403
    visible = "see disks" if "disks" in need else "see"
    return 403 if visible in role.level(owner) else 404


def _granted(role: Role, need: str, owner: str) -> bool:
    """Who may do something with everybody's things learns what is not there from the operation."""
    if need == "administrate" or owner == "absent":
        return need in role.level("ada") and need in role.level("sam")
    return need in role.level(owner)

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
    "/ssh": "enter",
    "/lab": "lab",
    "/ssh-tickets": "lab",
    "/ssh-host": "lab",
    "/closing": "lab",
    "/activity": "lab",
    "/launch": "launch",
    "/server": "launch",
    "/drain": "administrate",
    "/maintenance": "administrate",
}

#: Told by how it begins, for reading and for the rest.
BEGINNINGS = {
    "/reservations/{id}": ("see", "change"),
    "/disks": ("see disks", "change disks"),
    "/users/": ("see keys", "change keys"),
}

#: What each level lets its holder do with the things of an owner.
LEVELS: dict[str, set[str]] = {
    "nothing": set(),
    "view": {"see", "leave"},
    "use": {"see", "leave", "enter"},
    "read": {"see", "see disks", "see keys"},
    "server": {"see", "lab"},
    "visitor": {"see", "change", "leave"},
    "reserve": {"see", "change", "leave", "reserve", "see disks", "change disks"},
    "spawner": {"see", "change", "leave", "reserve", "see disks", "launch"},
}
LEVELS["own"] = LEVELS["reserve"] | {"enter", "lab", "see keys", "change keys"}
# An admin does everything but come in: for that they invite themself, where the owner reads it.
LEVELS["admin"] = (LEVELS["own"] - {"enter"}) | {"launch", "administrate"}


@dataclass(frozen=True)
class Role:
    """A kind of caller: what they are to ada's things, to sam's, and `elsewhere` to things that no
    cell is about. `known` is False for callers whom the Hub does not vouch for, `scoped` for those
    who hold any scope of gpudev. `name_at_hub` is whose token it is, where that matters."""

    name: str
    on_ada: str = "nothing"
    on_sam: str = "nothing"
    elsewhere: str = "nothing"
    name_at_hub: str = ""
    known: bool = True
    scoped: bool = True

    def level(self, owner: str) -> set[str]:
        return LEVELS[{"ada": self.on_ada, "sam": self.on_sam}.get(owner, "nothing")]

    @property
    def anywhere(self) -> set[str]:
        """What the role can do with anybody's things, its own included."""
        return LEVELS[self.on_ada] | LEVELS[self.on_sam] | LEVELS[self.elsewhere]


ROLES = (
    Role("anonymous", known=False),
    Role("expired", known=False),
    Role("revoked", known=False),
    Role("no scope", scoped=False),
    Role("stranger", on_sam="own"),
    Role("collaborator (use)", on_ada="use", elsewhere="own", name_at_hub="cleo"),
    Role("collaborator (view)", on_ada="view", elsewhere="own", name_at_hub="vera"),
    Role("removed collaborator", elsewhere="own", name_at_hub="remy"),
    # Whoever works in cleo's own server has this; it opens nothing that is shared with cleo.
    Role("collaborator's narrowed token", elsewhere="visitor", name_at_hub="cleo"),
    Role("owner", on_ada="own"),
    Role("reader", on_ada="read"),
    Role("server's own token", on_ada="server"),
    Role("another server's token", elsewhere="server"),
    Role("owner's login in the server", on_ada="visitor"),
    Role("group admin", on_ada="reserve", elsewhere="own"),
    Role("spawner", on_ada="spawner", on_sam="spawner"),
    Role("admin", on_ada="admin", on_sam="admin", elsewhere="own"),
)


def about(method: str, path: str) -> str:
    """What a call needs, told from its address."""
    reading = method == "GET"
    if path in OPEN:
        return "open"
    for ending, need in ENDINGS.items():
        if path.endswith(ending):
            return need
    if path.endswith("/collaborators/{user}") and method == "DELETE":
        return "leave"
    if path == "/plan" or (path == "/reservations" and not reading):
        return "reserve"
    for beginning, (see, change) in BEGINNINGS.items():
        if path.startswith(beginning):
            return see if reading else change
    return "look"


def expected(role: Role, method: str, path: str, owner: str) -> int | None:
    """The status of the refusal, or None where the call must be let through. `owner` is "ada",
    "sam", or "absent" for things that are not there."""
    need = about(method, path)
    if need == "open":
        return None
    if not (role.known and role.scoped):
        return 403 if role.known else 401
    if need == "look" or granted(role, need, owner):
        return None
    # Such a caller never could, whatever is there; or a person is named, not an object.
    named = need == "reserve" or path == "/disks" or path.startswith("/users/")
    if need not in role.anywhere or named:
        return 403
    visible = "see disks" if "disks" in need else "see"
    return 403 if visible in role.level(owner) else 404


def granted(role: Role, need: str, owner: str) -> bool:
    """Who may do something with everybody's things learns what is not there from the operation."""
    if need == "administrate" or owner == "absent":
        return need in role.level("ada") and need in role.level("sam")
    return need in role.level(owner)

"""What is planted: the holes as `planted/` says them, checked for sense."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.tiers import ROOT

PLANTED = Path(__file__).parent / "planted"
#: The classes of holes known in this field; each is a file in `planted/`.
CLASSES = frozenset(
    {
        "name-collision",
        "xsrf",
        "xss",
        "open-redirect",
        "authorization",
        "authentication",
        "session-token",
        "ssrf-origin-path",
        "exhaustion",
        "ssh-proxy-command",
        "peer",
    }
)
_STARTS_SERVERS = re.compile(r"pytest\.mark\.(hub5?|browser|postgres|ssh|cluster|chart|slow)\b")


@dataclass(frozen=True, slots=True)
class Hole:
    """One guard that is gone.

    Attributes:
        what: what somebody could do then.
        old, new: text of `file`, and what stands there instead; `old` stands there once.
        tests: node ids; each must fail, with an assertion.
    """

    kind: str
    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def quick(self) -> bool:
        """Whether its tests start no servers."""
        return not any(_STARTS_SERVERS.search(_text(test.split("::")[0])) for test in self.tests)

    def planted(self, text: str) -> str:
        """The content of `file` with the hole.

        Raises:
            LookupError: the guard is not there any more, or not only there: the hole is out of
                date.
        """
        found = text.count(self.old)
        if found != 1:
            raise LookupError(
                f"{self.kind}/{self.name} is out of date: {self.file} has its text {found} times"
            )
        return text.replace(self.old, self.new)

    def lacking(self) -> list[str]:
        """The tests that it names and that are not there."""
        return [test for test in self.tests if not _is_there(test)]

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@functools.cache
def holes() -> tuple[Hole, ...]:
    """All of them, in the order of their classes."""
    found = []
    for path in sorted(PLANTED.glob("*.toml")):
        for entry in tomllib.loads(path.read_text("utf-8"))["hole"]:
            tests = tuple(entry.pop("tests"))
            found.append(Hole(kind=path.stem, tests=tests, **entry))
    return tuple(found)


@functools.cache
def _text(path: str) -> str:
    file = ROOT / path
    return file.read_text("utf-8") if file.is_file() else ""


def _is_there(test: str) -> bool:
    """Whether a module has the test; that of a class may be inherited from a module beside it."""
    path, *classes, function = test.split("[", maxsplit=1)[0].split("::")
    texts = [_text(path)]
    if classes:
        texts += [_text(str(p.relative_to(ROOT))) for p in (ROOT / path).parent.glob("*.py")]
    wanted = re.compile(rf"^ *(async )?def {re.escape(function)}\(", re.MULTILINE)
    return any(wanted.search(text) for text in texts)

"""Which files of a folder are copied; pure up to `files`, which looks at the folder.

`.gpudevignore` says what stays behind, in the form of `.gitignore`: one pattern a line, `#` begins
a comment, `!` takes back, a final `/` means folders, a `/` before ties the pattern to the top, and
`**` means any number of folders. Without that file what git ignores stays behind, where the folder
is git's; what comes back is left out by `.gpudevignore` only. `.git` never goes along.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .errors import RemoteError

FILE = ".gpudevignore"


class Patterns:
    """The rules of one file; the last that fits decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for rule in map(_rule, lines) if rule is not None]

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Whether `path`, relative to the top, stays behind. Whoever asks has asked for the
        folders above it before."""
        found = False
        for pattern, only_folders, ignored in self._rules:
            if (folder or not only_folders) and pattern.fullmatch(path):
                found = ignored
        return found


def files(top: Path) -> list[str]:
    """What is copied from a folder: files and links, relative to it, in order.

    Raises:
        OSError: the folder cannot be read.
        RemoteError: its own file is not text.
    """
    own = rules(top)
    if own is not None:
        return _walk(top, own)
    by_git = _by_git(top)
    return _walk(top, Patterns([])) if by_git is None else by_git


def rules(top: Path) -> Patterns | None:
    """What the folder's own file says; None where it has none.

    Raises:
        RemoteError: the file is not text.
    """
    file = top / FILE
    if not file.is_file():
        return None
    lines = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            shown = line.decode("ascii", "backslashreplace")
            raise RemoteError(
                f"{file}, line {number}, is not UTF-8: {shown}. Save the file as UTF-8."
            ) from None
    return Patterns(lines)


def returned(paths: Iterable[str], top: Path) -> list[str]:
    """Those of `paths` that are copied back into a folder: all but what its `.gpudevignore` names,
    and `.git`. What git ignores is just what programs make: their results."""
    own = rules(top) or Patterns([])
    found = []
    for path in paths:
        parts = path.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        inside = ".git" in parts or any(own.ignores(one, folder=True) for one in above)
        if not inside and not own.ignores(path, folder=False):
            found.append(path)
    return found


def _by_git(top: Path) -> list[str] | None:
    """What git does not ignore; None where the folder is not git's."""
    if shutil.which("git") is None:
        return None
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=top,
        capture_output=True,
        check=False,
    )
    if told.returncode != 0:
        return None
    names = sorted({os.fsdecode(name) for name in told.stdout.split(b"\0") if name})
    # Deleted ones are still known to git; a submodule is a folder to it.
    return [name for name in names if (top / name).is_symlink() or (top / name).is_file()]


def _walk(top: Path, rules: Patterns) -> list[str]:
    found: list[str] = []
    waiting = [""]
    while waiting:
        here = waiting.pop()
        with os.scandir(top / here) as entries:
            for entry in entries:
                path = f"{here}{entry.name}"
                folder = entry.is_dir(follow_symlinks=False)
                if entry.name == ".git" or rules.ignores(path, folder=folder):
                    continue
                if folder:
                    waiting.append(f"{path}/")
                elif entry.is_symlink() or entry.is_file():
                    found.append(path)
    return sorted(found)


def _rule(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    text = line.rstrip()
    ignored = not text.startswith("!")
    text = text.removeprefix("!")
    if not text or text.startswith("#"):
        return None
    only_folders = text.endswith("/")
    text = text.rstrip("/").removeprefix("\\")
    tied = "/" in text
    pattern = _translated(text.removeprefix("/"))
    return re.compile(pattern if tied else f"(?:.*/)?{pattern}"), only_folders, ignored


def _translated(text: str) -> str:
    made, at = "", 0
    while at < len(text):
        if text.startswith("**/", at):
            made, at = made + "(?:.*/)?", at + 3
        elif text.startswith("**", at):
            made, at = made + ".*", at + 2
        elif text[at] == "*":
            made, at = made + "[^/]*", at + 1
        elif text[at] == "?":
            made, at = made + "[^/]", at + 1
        elif text[at] == "[" and (end := text.find("]", at + 2)) > 0:
            inside = text[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            inside = f"^{inside[1:]}" if inside[0] == "!" else inside
            made, at = f"{made}[{inside}]", end + 1
        else:
            made, at = made + re.escape(text[at]), at + 1
    return made

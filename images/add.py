"""`add.py WHEEL EXTRAS LOCK`: gives this environment what a wheel with these extras needs.

What is there stays as it is where the ranges take it: whoever made the base has chosen and tried
it. So the lock file gives only what is missing, and what is refused by the ranges of the wheel or
of what was just added; all of it by its hashes. The wheel itself is left to pip, without an index,
and `pip check` says then whether everything fits.

It needs nothing but the standard library and pip, which is there wherever this is of use.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==[^\\]+")


def asked(lines: Iterable[str], extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """The requirements that hold here, of a distribution with these extras."""
    for line in lines:
        each = Requirement(line)
        chosen = ({"extra": extra} for extra in ("", *extras))
        if each.marker is None or any(each.marker.evaluate(one) for one in chosen):
            yield each


def of_wheel(wheel: str) -> list[str]:
    """What a wheel says that it needs."""
    with ZipFile(wheel) as files:
        [path] = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(files.read(path).decode()).get_all("Requires-Dist") or []


def locked(text: str) -> dict[str, str]:
    """The pins of a lock file that hold here, by name, with their hashes and without comments."""
    pins: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if pin := _PIN.match(line):
            name = canonicalize_name(pin[1]) if list(asked([pin[0]])) else ""
            if name:
                pins[name] = line
        elif name and line.strip().startswith("--hash"):
            pins[name] += f"\n{line}"
    return pins


def added(
    wants: Iterable[Requirement], pins: Mapping[str, str], there: Mapping[str, str]
) -> dict[str, str]:
    """The pins of what is missing, and of what is there in a version that somebody refuses."""
    refused = set()
    for each in wants:
        name = canonicalize_name(each.name)
        if name in there and not each.specifier.contains(there[name], prereleases=True):
            refused.add(name)
    return {name: pin for name, pin in pins.items() if name not in there or name in refused}


def main(wheel: str, extras: str, lock: str) -> None:
    pins = locked(Path(lock).read_text())
    own = list(asked(of_wheel(wheel), extras.split(",")))
    while True:
        found = list(distributions())
        there = {canonicalize_name(each.metadata["Name"]): each.version for each in found}
        wants = [*own, *(one for each in found for one in asked(each.requires or ()))]
        more = added(wants, pins, there)
        if not more:
            return
        for name, pin in more.items():
            before = f", in the place of {there[name]}" if name in there else ""
            sys.stderr.write(f"{pin.split()[0]}{before}\n")
        _install(more.values())
        # Each is given once: what is refused in the lock file's version too, `pip check` names.
        pins = {name: pin for name, pin in pins.items() if name not in more}


def _install(pins: Iterable[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins) + "\n")
        file.flush()
        subprocess.run([*command, "--require-hashes", f"--requirement={file.name}"], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`sbom.py NAME FILE`: writes what is installed in this image as a CycloneDX bill of materials.

Debian's packages come from dpkg, Python's from the environment of the interpreter that runs this.
It needs nothing but the standard library, so that nothing is installed to say what is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

_DPKG = ["dpkg-query", "--show", "--showformat=${Package}\t${Version}\t${Architecture}\n"]


def debian(listing: str) -> list[dict[str, Any]]:
    """Components from dpkg-query's lines of name, version and architecture."""
    found = []
    for line in listing.splitlines():
        name, version, architecture = line.split("\t")
        found.append(_component(name, version, f"deb/debian/{name}", f"?arch={architecture}"))
    return found


def python() -> list[dict[str, Any]]:
    """Components from what this interpreter can import."""
    found = {}
    for each in distributions():
        name = each.metadata["Name"]
        if name and name.lower() not in found:
            found[name.lower()] = _component(name, each.version, f"pypi/{name.lower()}")
    return list(found.values())


def document(name: str, components: list[dict[str, Any]]) -> dict[str, Any]:
    """The bill; without a time or a random number, so that the same image has the same one."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "bom-ref": name}},
        "components": sorted(components, key=lambda each: str(each["bom-ref"])),
    }


def _component(name: str, version: str, path: str, rest: str = "") -> dict[str, Any]:
    url = f"pkg:{path}@{quote(version, safe='')}{rest}"
    return {"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url}


def main(name: str, file: str) -> None:
    listing = subprocess.run(_DPKG, capture_output=True, text=True, check=True).stdout
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document(name, debian(listing) + python()), indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`python -m tools.reference [--check]`."""

from __future__ import annotations

import sys

from .pages import ROOT, rendered


def main(arguments: list[str]) -> int:
    """0 when all is current (with `--check`) or written; 1 when something is not; 2 for usage."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m tools.reference [--check]", file=sys.stderr)
        return 2
    stale = 0
    for path, text in rendered().items():
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        print(f"{'not current' if arguments else 'wrote'}: {path.relative_to(ROOT)}")
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if arguments and stale:
        print("`make docs` writes them anew.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

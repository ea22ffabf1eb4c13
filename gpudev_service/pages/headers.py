"""What every page tells the browser about itself.

Servers of other users live on the same host, so nothing is allowed merely for being of this origin:
scripts and style sheets need the nonce of this one answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HOST = r"[A-Za-z0-9.:\[\]-]+"

#: On every answer, also on style sheets and scripts.
ALWAYS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


#: Until it is known which page it will be.
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def policy(nonce: str, *, styles: tuple[str, ...] = (), form_targets: tuple[str, ...] = ()) -> str:
    """The Content-Security-Policy of a page.

    Args:
        nonce: random, of this answer alone.
        styles: addresses below which the Hub's style sheet finds what it imports.
        form_targets: origins beyond our own to which a form's answer may redirect.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            " ".join(["style-src", f"'nonce-{nonce}'", *styles]),
            "img-src 'self' data:",  # Bootstrap draws its arrows and ticks from data: addresses
            "font-src 'self'",
            "connect-src 'self'",
            " ".join(["form-action", "'self'", *form_targets]),
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


def below(host: str, path: str) -> tuple[str, ...]:
    """The source of everything below `path` on the host that the browser asked; none where the
    Host header is not one that a browser sends. "http" covers https as well."""
    return (f"http://{host}{path}",) if re.fullmatch(_HOST, host) else ()


def of_page() -> dict[str, str]:
    """The headers of a page, whichever it is."""
    return {
        **ALWAYS,
        "Content-Security-Policy": NOTHING,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Content-Type": "text/html; charset=utf-8",
    }

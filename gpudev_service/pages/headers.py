"""What every page tells the browser about itself.

Servers of other users live on the same host, so nothing is allowed merely for being of this origin:
scripts and style sheets need the nonce of this one answer.
"""

from __future__ import annotations

from collections.abc import Mapping

#: On every answer, also on style sheets and scripts.
ALWAYS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def policy(nonce: str, *, form_targets: tuple[str, ...] = ()) -> str:
    """The Content-Security-Policy of a page.

    Args:
        nonce: random, of this answer alone.
        form_targets: origins beyond our own to which a form's answer may redirect.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            f"style-src 'nonce-{nonce}'",
            "img-src 'self' data:",  # Bootstrap draws its arrows and ticks from data: addresses
            "font-src 'self'",
            "connect-src 'self'",
            " ".join(["form-action", "'self'", *form_targets]),
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


def of_page(nonce: str, *, form_targets: tuple[str, ...] = ()) -> dict[str, str]:
    """All headers of a page."""
    return {
        **ALWAYS,
        "Content-Security-Policy": policy(nonce, form_targets=form_targets),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Content-Type": "text/html; charset=utf-8",
    }

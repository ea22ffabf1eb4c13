"""Whose certificates the client trusts: the one answer for its requests and its SSH connections.

As OpenSSL on this machine does, where an institution puts its own authority too; SSL_CERT_FILE and
SSL_CERT_DIR say so otherwise. A Python that comes without certificates takes those of `certifi`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def context() -> ssl.SSLContext:
    """What a TLS connection of the client is made with."""
    import ssl

    # Certificates in a directory are looked up when they are needed; loading them all takes tens
    # of milliseconds.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_default_verify_paths()
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if not named and not _has_own(ssl.get_default_verify_paths()):
        made.load_verify_locations(cafile=_certifi())
    return made


def _has_own(paths: ssl.DefaultVerifyPaths) -> bool:
    """Whether OpenSSL finds any certificate where it looks; what is not there is None."""
    listed = os.listdir(paths.capath) if paths.capath else []  # noqa: PTH208 - pathlib takes 10 ms
    return bool(paths.cafile or listed)


def _certifi() -> str:
    try:
        import certifi
    except ModuleNotFoundError:
        # `ssh` runs us without site-packages, for the sake of its start.
        import site

        site.main()
        import certifi
    return certifi.where()

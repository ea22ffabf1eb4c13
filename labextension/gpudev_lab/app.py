"""The server extension: loads everything else into a Jupyter server."""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp


class LabExtension(ExtensionApp):
    """gpudev in a single-user server."""

    name = "gpudev_lab"

"""A server extension for the soak: what a Jupyter server holds, told by itself."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections import Counter
from typing import Any

import psutil
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

PATH = "soak/look"


class Look(APIHandler):
    auth_resource = "gpudev"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Its process, how many tasks of its loop run which coroutine, and the bytes that remain
        when it has given back what it does not use."""
        tasks = Counter(getattr(t.get_coro(), "__qualname__", "?") for t in asyncio.all_tasks())
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        held = psutil.Process().memory_info().rss
        await self.finish({"pid": os.getpid(), "tasks": tasks, "held": held})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "benchmarks.soak_look"}]


def _load_jupyter_server_extension(server: Any) -> None:
    path = url_path_join(server.web_app.settings["base_url"], PATH)
    server.web_app.add_handlers(".*$", [(path, Look)])

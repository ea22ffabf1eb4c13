"""An API server that a test keeps away, or lets come. It has the pods that it is given and nothing
else, tells nobody what changes, and makes all."""

from __future__ import annotations

import json
import socket
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler


class _Api(RequestHandler):
    """Has a list of pods, and makes what it is asked to."""

    calls: list[str]
    pods: list[dict[str, Any]]

    def prepare(self) -> None:
        self.calls.append(f"{self.request.method} {self.request.path}")
        self.set_header("Content-Type", "application/json")

    def get(self) -> None:
        if self.request.path.endswith("/pods") and not self.get_query_argument("watch", ""):
            found = {"metadata": {"resourceVersion": "1"}, "items": self.pods}
            self.write({"kind": "PodList", "apiVersion": "v1", **found})
        else:
            self.delete()

    def delete(self) -> None:
        self.set_status(404)
        self.write(json.dumps({"kind": "Status", "reason": "NotFound", "code": 404}))

    def post(self) -> None:
        self.set_status(201)
        self.write(self.request.body)


class Away:
    """An API server at a port that refuses everybody until it `comes`."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # nobody else gets it, and nobody listens
        self.port = self._socket.getsockname()[1]
        self.calls: list[str] = []
        self.pods: list[dict[str, Any]] = []
        api = type("_Here", (_Api,), {"calls": self.calls, "pods": self.pods})
        self._server = HTTPServer(Application([(".*", api)]))

    def comes(self) -> None:
        self._socket.setblocking(False)
        self._socket.listen()
        self._server.add_socket(self._socket)

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()
        self._socket.close()

"""An API server that misbehaves when it is told to: it goes silent, cuts, forgets, repeats itself,
lags behind. Good behaviour is tested with the real one (tests/cluster)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gpudev_service.kube.connection import Kube, connect
from gpudev_service.settings import GpuTypeSpec, KubernetesSettings, Settings

Object = dict[str, Any]


class Moody:
    """Nodes and pods, and the events that made them. `mood` is how watches are answered:

    - `well`: events as they come, and a bookmark at the end of the window;
    - `silent`: the connection stands, and nothing is said, not even headers;
    - `mute`: headers come, and nothing after them, not even the end;
    - `cut`: the connection breaks after the first event or at once;
    - `short`: the answer ends at once, as if all were well;
    - `gone`, `gone_later`: 410 as the answer, or as an event;
    - `replay`: all events since the beginning again, whatever was asked for;
    - `garbage`: what is not JSON;
    - `refuses`: 403; `ill`: 503.

    Deleted pods go at once, unless `stuck` names them: then only force removes them.
    """

    def __init__(self) -> None:
        self.version = 10
        self.things: dict[str, dict[str, Object]] = {"nodes": {}, "pods": {}}
        self.told: dict[str, list[Object]] = {"nodes": [], "pods": []}
        self.stuck: set[str] = set()
        #: Pods whose names begin so are refused, in words that are nobody else's business.
        self.barred: str | None = None
        self.bookmarks = True
        self.deleted: list[tuple[str, Object]] = []
        self.mood = "well"
        #: Answers lists as they were at that time, when set.
        self.old_list: Object | None = None
        self.page = 500
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.change = asyncio.Event()

    @property
    def events(self) -> list[Object]:
        return self.told["nodes"]

    def put(self, name: str, **labels: str) -> None:
        self.set({"metadata": {"name": name, "labels": labels}})

    def set(self, thing: Object) -> None:
        """Makes or changes a node, or a pod (that is what has a namespace)."""
        metadata = dict(thing["metadata"])
        kind, name = _kind(metadata), metadata["name"]
        known = self.things[kind]
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        event = "MODIFIED" if name in known else "ADDED"
        known[name] = {**thing, "metadata": metadata}
        self._tell(kind, event, known[name])

    def drop(self, name: str, kind: str = "nodes") -> None:
        thing = self.things[kind].pop(name)
        self.version += 1
        metadata = {**thing["metadata"], "resourceVersion": str(self.version)}
        self._tell(kind, "DELETED", {**thing, "metadata": metadata})

    def become(self, mood: str) -> None:
        self.mood = mood
        self._ring()

    def listed(self, kind: str = "nodes") -> Object:
        return {
            "metadata": {"resourceVersion": str(self.version)},
            "items": list(self.things[kind].values()),
        }

    def watches(self) -> int:
        return sum("watch" in query for _, query in self.requests)

    def _tell(self, kind: str, event: str, thing: Object) -> None:
        self.told[kind].append({"type": event, "object": thing})
        self._ring()

    def _ring(self) -> None:
        rung, self.change = self.change, asyncio.Event()
        rung.set()


def _kind(metadata: Object) -> str:
    return "pods" if "namespace" in metadata else "nodes"


class Things(RequestHandler):
    def initialize(self, moody: Moody, kind: str) -> None:
        self.moody, self.kind = moody, kind

    async def get(self) -> None:
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        self.moody.requests.append((self.request.path, query))
        if "watch" in query:
            try:
                await self._watch(int(query["resourceVersion"]), int(query["timeoutSeconds"]))
            except StreamClosedError:
                return
        else:
            self._list(query)

    def post(self) -> None:
        if self._wrong():
            return
        made = json.loads(self.request.body)
        barred = self.moody.barred
        if barred is not None and made["metadata"]["name"].startswith(barred):
            self.set_status(422)
            self.write({"reason": "Invalid", "message": "these are nodes of the accounting"})
            return
        made["metadata"]["namespace"] = self.request.path.split("/")[4]
        made["metadata"]["uid"] = f"uid-{made['metadata']['name']}"
        self.moody.set(made)
        self.set_status(201)
        self.write(self.moody.things[self.kind][made["metadata"]["name"]])

    def _list(self, query: dict[str, str]) -> None:
        if self._wrong():
            return
        whole = self.moody.old_list or self.moody.listed(self.kind)
        whole = {**whole, "items": [item for item in whole["items"] if _fits(item, query)]}
        first = int(query.get("continue", "0"))
        last = first + min(self.moody.page, int(query.get("limit", "500")))
        metadata = dict(whole["metadata"])
        if last < len(whole["items"]):
            metadata["continue"] = str(last)
        self.write({"metadata": metadata, "items": whole["items"][first:last]})

    def _wrong(self) -> bool:
        status = {"refuses": 403, "ill": 503}.get(self.moody.mood)
        if status is not None:
            self.set_status(status)
            self.write({"kind": "Status", "reason": "No", "message": "not today"})
        return status is not None

    async def _watch(self, since: int, window: int) -> None:
        moody = self.moody
        if self._wrong():
            return
        if moody.mood == "gone":
            self.set_status(410)
            self.write({"reason": "Expired", "message": "too old"})
            return
        if moody.mood == "silent":
            await moody.change.wait()
            return
        await self.flush()
        if moody.mood == "mute":
            await moody.change.wait()
            return
        if not await self._follow(0 if moody.mood == "replay" else since, window):
            return
        if moody.mood == "well" and moody.bookmarks:
            version = {"metadata": {"resourceVersion": str(moody.version)}}
            await self._say({"type": "BOOKMARK", "object": version})

    async def _follow(self, since: int, window: int) -> bool:
        """Says what happens until the window ends; False where a mood has ended it before."""
        moody, loop = self.moody, asyncio.get_running_loop()
        until = loop.time() + window
        while (left := until - loop.time()) > 0:
            bell = moody.change
            if await self._odd():
                return False
            for event in moody.told[self.kind]:
                version = int(event["object"]["metadata"]["resourceVersion"])
                if version > since:
                    since = version
                    await self._say(event)
            try:
                await asyncio.wait_for(bell.wait(), left)
            except TimeoutError:
                break
        return True

    async def _odd(self) -> bool:
        match self.moody.mood:
            case "gone_later":
                status = {"code": 410, "reason": "Expired", "message": "too old"}
                await self._say({"type": "ERROR", "object": status})
            case "garbage":
                self.write(b"<html>\n")
                await self.flush()
            case "short":
                pass
            case "cut":
                stream = self.request.connection.stream  # type: ignore[union-attr]  # HTTP/1
                stream.close()
            case _:
                return False
        return True

    async def _say(self, event: Object) -> None:
        self.write(json.dumps(event) + "\n")
        await self.flush()


class Thing(Things):
    """One node, or one pod: to be read, and to be deleted."""

    async def get(self, name: str) -> None:  # type: ignore[override]  # tornado passes the path
        thing = self.moody.things[self.kind].get(name)
        self.moody.requests.append((self.request.path, {}))
        if self._wrong():
            return
        if thing is None:
            self.set_status(404)
            self.write({"reason": "NotFound", "message": "no such thing"})
            return
        self.write(thing)

    async def delete(self, name: str) -> None:
        options = json.loads(self.request.body)
        if self._wrong():
            return
        thing = self.moody.things[self.kind].get(name)
        if thing is None:
            self.set_status(404)
            self.write({"reason": "NotFound"})
            return
        if options.get("preconditions", thing["metadata"]).get("uid") != thing["metadata"].get(
            "uid"
        ):
            self.set_status(409)
            self.write({"reason": "Conflict"})
            return
        self.moody.deleted.append((name, options))
        if name not in self.moody.stuck or options.get("gracePeriodSeconds") == 0:
            self.moody.drop(name, self.kind)
        else:
            leaving = {**thing["metadata"], "deletionTimestamp": "2026-03-01T12:00:30Z"}
            self.moody.set({**thing, "metadata": leaving})
        self.write({"kind": "Status"})


def _fits(item: Object, query: dict[str, str]) -> bool:
    wanted = query.get("labelSelector")
    if wanted is None:
        return True
    name, value = wanted.split("=")
    return bool((item["metadata"].get("labels") or {}).get(name) == value)


@asynccontextmanager
async def moody_server(folder: Path) -> AsyncIterator[tuple[Moody, Kube]]:
    """A server, and a connection to it as the service makes one."""
    moody = Moody()
    nodes, pods = ({"moody": moody, "kind": kind} for kind in ("nodes", "pods"))
    server = HTTPServer(
        Application(
            [
                ("/api/v1/nodes", Things, nodes),
                ("/api/v1/nodes/([^/]+)", Thing, nodes),
                ("/api/v1/pods", Things, pods),
                ("/api/v1/namespaces/[^/]+/pods", Things, pods),
                ("/api/v1/namespaces/[^/]+/pods/([^/]+)", Thing, pods),
            ]
        )
    )
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    async with connect(settings_for(folder, f"http://127.0.0.1:{port}")) as kube:
        try:
            yield moody, kube
        finally:
            moody.become("well")
            server.stop()
            await server.close_all_connections()


def settings_for(folder: Path, url: str, types: dict[str, GpuTypeSpec] | None = None) -> Settings:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": url}}],
        "users": [{"name": "it", "user": {"token": "not-a-token"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    kubernetes = KubernetesSettings(kubeconfig=path, namespace="lab")
    return Settings(
        gpu_types=types or {}, servers="kubernetes", data_dir=folder, kubernetes=kubernetes
    )

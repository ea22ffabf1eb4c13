"""A list of objects kept up to date by watches, which knows how old its view is.

A watch that has died in silence looks like a quiet cluster: that is why each one is short (the
server ends it after `Timing.window` seconds) and the next begins where it ended. No data is read
twice, and a server, proxy or network that says nothing is noticed after `Timing.limit` seconds.
Signs of life are news, bookmarks, and the end of a watch at its time: whoever can send that end had
sent all that was before it. An open connection proves nothing. Bookmarks alone would not do: a
server has none for what has not changed since its own start.

Versions rise with every change, so an event that is not newer than the view is a repetition, and a
list that is older than the view comes from a server that lags behind: both are ignored.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

from gpudev_service.clock import elapsed

from .refusals import KubeAway, KubeRefused, Object

if TYPE_CHECKING:
    from .connection import Kube

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Objects on one page of a list.
PAGE = 500
#: Most pages of a list: beyond, something gives us pages in a circle.
_PAGES = 10_000
_GONE = 410
#: By how many seconds a server may end a watch before its time.
_PUNCTUAL = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds. `window`: how long one watch lasts. `limit`: a view without a sign of life for
    longer is not fresh. `pause`, `longest_pause`: between attempts after failures, growing.
    `restored`: a server that is behind the view for longer has been restored from a backup."""

    window: int = 12
    limit: float = 18.0
    pause: float = 0.25
    longest_pause: float = 4.0
    restored: float = 120.0


class Expired(Exception):  # noqa: N818 - a condition
    """The server does not know any more what has changed since the view's version."""


class Watched(Generic[T]):
    """Objects by key ("namespace/name", or the name of one without namespace), as `read` takes
    them; those for which it returns None are left out.

    `changed(key, before, after)` is called for each change, never while items are half replaced.
    What happens within `rest` seconds is taken in together.
    """

    def __init__(
        self,
        kube: Kube,
        path: str,
        read: Callable[[Object], T | None],
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        changed: Callable[[str, T | None, T | None], None] = lambda *_: None,
        timing: Timing = Timing(),
        rest: float = 0.0,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._kube, self._path, self._read = kube, path, read
        self._query, self._changed = dict(query), changed
        self._timing, self._rest, self._clock = timing, rest, clock
        self._items: dict[str, T] = {}
        self._version: int | None = None
        self._newest = 0
        self._expired = False
        self._proved: float | None = None
        self._behind_since: float | None = None
        #: Versions of objects that were learned before the watch told of them.
        self._learned: dict[str, int] = {}
        #: Whether this watch has told what was known: then it comes from somewhere else.
        self._repeated = False
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        #: In words, what is wrong at the moment; None while all is well.
        self.trouble: str | None = None

    # --- what it knows ------------------------------------------------------------------------

    @property
    def items(self) -> Mapping[str, T]:
        return self._items

    @property
    def age(self) -> float:
        """Seconds since the view was last known to be current; infinite before the first list."""
        return math.inf if self._proved is None else max(0.0, self._clock() - self._proved)

    @property
    def fresh(self) -> bool:
        return self.age <= self._timing.limit

    async def news(self) -> None:
        """Waits until anything happens: a change, a sign of life, a failure."""
        await self._news.wait()

    def learn(self, key: str, item: Object | None) -> None:
        """Takes in an object that somebody has just read, or None for one that is gone: the watch
        may be behind. What it tells later of times before that is ignored."""
        if item is None:
            self._apply(key, None)
        elif (version := _version(item)) > max(self._newest, self._learned.get(key, 0)):
            self._learned[key] = version
            self._apply(key, self._read(item))
        self._ring()

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name=f"watch {self._path}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def expire(self) -> None:
        """The view is to be listed anew, whatever it knows."""
        self._expired = True

    async def _follow(self) -> None:
        """Lists and watches until it is closed; after failures with growing pauses."""
        failures = 0
        while True:
            try:
                await self.step()
            except Expired:
                log.info("watch of %s: expired, listing again", self._path)
                self._expired = True
            except (KubeAway, KubeRefused) as error:
                self._failed(error, failures)
                failures += 1
            except Exception:
                # Whatever a reader or a listener does: the view must go on.
                log.exception("watch of %s failed", self._path)
                self.trouble, self._expired = "an error of gpudev itself", True
                failures += 1
            else:
                failures, self.trouble = 0, None
            self._ring()
            if failures:
                longest = self._timing.longest_pause
                await asyncio.sleep(min(longest, self._timing.pause * 2 ** min(failures, 8)))

    def _failed(self, error: KubeAway | KubeRefused, failures: int) -> None:
        # Everybody reads it; what the API server said in full is for the log.
        self.trouble = (
            f"its API server refuses to tell ({error.status})"
            if isinstance(error, KubeRefused)
            else "its API server does not answer"
        )
        if failures == 0:
            log.warning("watch of %s: %s", self._path, error)
        if isinstance(error, KubeRefused) and error.status == _GONE:
            self._expired = True

    async def step(self) -> None:
        """One list where the view needs it, then one watch to its end.

        Raises:
            Expired: the view must be listed anew.
            KubeAway, KubeRefused: it could not go on; the view stays as it is.
        """
        if self._version is None or self._expired:
            await self._list()
        # After a failure a short one tells soon whether all is well again.
        window, loop = 1 if self.trouble else self._timing.window, asyncio.get_running_loop()
        begun, self._repeated = loop.time(), False
        try:
            async with asyncio.timeout(window + self._timing.limit / 4):
                await self._watch(window)
        except TimeoutError:
            raise KubeAway("the watch stands still") from None
        if loop.time() - begun < window - _PUNCTUAL:
            raise KubeAway("the API server ended the watch early")
        if not self._repeated:
            self._prove()

    # --- list ---------------------------------------------------------------------------------

    async def _list(self) -> None:
        found: dict[str, T] = {}
        query: dict[str, str | int] = {**self._query, "limit": PAGE}
        for _ in range(_PAGES):
            page = await self._page(query)
            for item in page.get("items") or ():
                kept = self._read(item)
                if kept is not None:
                    found[_key(item)] = kept
            following = page.get("metadata", {}).get("continue")
            if not following:
                break
            query["continue"] = following
        else:
            raise KubeAway("a list without end")
        version = _version(page)
        self._refuse_older(version)
        self._version, self._newest, self._expired = version, version, False
        self._prove()
        self._learned.clear()
        self._replace(found)

    async def _page(self, query: dict[str, str | int]) -> Object:
        try:
            return await self._kube.get(self._path, query)
        except KubeRefused as refusal:
            if refusal.status == _GONE:
                raise Expired from None
            raise

    def _refuse_older(self, version: int) -> None:
        """A list of the past would bring back what is gone. Where the server stays behind, its
        data has been restored from a backup, and is the truth."""
        now = self._clock()
        if version >= self._newest:
            self._behind_since = None
            return
        if self._behind_since is None:
            self._behind_since = now
        if now - self._behind_since < self._timing.restored:
            raise KubeAway("the API server answers with an older state than before")
        log.warning("%s: the API server has been behind for long: taken as restored", self._path)
        self._behind_since = None

    def _replace(self, found: dict[str, T]) -> None:
        before, self._items = self._items, found
        for key in before.keys() - found.keys():
            self._changed(key, before[key], None)
        for key, item in found.items():
            if before.get(key) != item:
                self._changed(key, before.get(key), item)
        self._ring()

    # --- watch --------------------------------------------------------------------------------

    async def _watch(self, window: int) -> None:
        query: dict[str, str | int] = {
            **self._query,
            "watch": 1,
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._version),
            "timeoutSeconds": window,
        }
        try:
            async with self._kube.lines(self._path, query, self._rest) as lines:
                async for line in lines:
                    if line.strip():
                        self._take(_event(line))
        except KubeRefused as refusal:
            if refusal.status == _GONE:
                raise Expired from None
            raise

    def _take(self, event: Object) -> None:
        kind, thing = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if thing.get("code") == _GONE:
                raise Expired
            raise KubeAway(f"the API server ended the watch: {thing.get('message', '')!s:.200}")
        version = _version(thing)
        if version < self._newest or (version == self._newest and kind != "BOOKMARK"):
            log.debug("watch of %s: a repeated event is ignored", self._path)
            self._repeated = True
            return
        self._version = self._newest = version
        self._prove()
        if kind != "BOOKMARK" and version >= self._learned.pop(key := _key(thing), 0):
            self._apply(key, None if kind == "DELETED" else self._read(thing))
        self._ring()

    def _apply(self, key: str, after: T | None) -> None:
        before = self._items.get(key)
        if after is None:
            self._items.pop(key, None)
        else:
            self._items[key] = after
        if before != after:
            self._changed(key, before, after)

    def _prove(self) -> None:
        self._proved = self._clock()

    def _ring(self) -> None:
        rung, self._news = self._news, asyncio.Event()
        rung.set()


def _event(line: bytes) -> Object:
    try:
        event: Any = orjson.loads(line)
    except ValueError as error:
        raise KubeAway("the API server sent what is not JSON") from error
    if not isinstance(event, dict):
        raise KubeAway("the API server sent what is no event")
    return event


def _key(item: Object) -> str:
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _version(item: Object) -> int:
    text = item.get("metadata", {}).get("resourceVersion", "")
    try:
        return int(text)
    except ValueError as error:
        raise KubeAway(f"a version that cannot be compared: {text!r:.40}") from error

"""Every page as every role, as `tests/api/matrix.py` has it for the calls of the API.

The list of pages is the router's own. What a page needs is told from its method and path alone.
Forms are sent with a token in the header, so the login's cookie, whose rules are tested elsewhere,
plays no part. A form that is let through is mostly one that lacks a field: it is refused for that,
and does nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from tornado.web import RequestHandler

from gpudev_service.pages import routes
from gpudev_service.pages.base import PageHandler
from tests.api.matrix import AT_ONCE, OWNERS, Cell, Matrix, shape
from tests.api.rules import ROLES, Role, granted

#: Forms that are whole without any field, or whose fields decide who may send them.
_WHOLE = {"reservations/{}/cancel", "disks/{}/delete", "disks/{}/undelete", "disks/{}/snapshots"}
_REMOVE = "reservations/{}/remove"
#: Addresses that only lead on to a page which asks for itself.
_LEAD_ON = {"extend", "keep", "invite", "remove", "undelete"}
_ASK_FIRST = {"cancel", "delete", "restore"}


@dataclass(frozen=True, slots=True)
class Page:
    """One method of one page; `{}` stands for the variable part of its path."""

    method: str
    path: str
    fragment: bool

    def __str__(self) -> str:
        return f"{self.method} page {self.path}"


def pages() -> Iterator[Page]:
    """All that the router has."""
    for pattern, kind in routes._PAGES:
        path = pattern.replace(routes._PART, "{}")
        if kind.get is not RequestHandler.get:
            yield Page("GET", path, kind.fragment)
        if kind.sent is not PageHandler.sent:
            yield Page("POST", path, kind.fragment)


def about(page: Page) -> str:
    """What a page needs."""
    reading = page.method == "GET"
    head, _, last = page.path.partition("/")
    last = last.rpartition("/")[2]
    looking = reading and last not in _ASK_FIRST
    if page.path == _REMOVE and not reading:
        return "leave"
    needs = {
        "admin": "administrate",
        "reservations": "see" if looking else "change",
        "disks": "see disks" if looking else "change disks",
        "ssh-keys": "see keys" if looking else "change keys",
    }
    leads_on = reading and head != "admin" and (last in _LEAD_ON)
    return "look" if leads_on else needs.get(head, "look")


def expected(role: Role, page: Page, owner: str) -> int | None:
    """The status of the refusal; 302 is that to the Hub's login."""
    need = about(page)
    if not role.known:
        return 401 if page.method == "POST" or page.fragment else 302
    if not role.scoped:
        return 403
    if need.endswith("keys"):  # always one's own
        return None if need in role.anywhere else 403
    if need == "look" or granted(role, need, owner):
        return None
    # Persons are named there, not objects.
    if need == "administrate" or page.path == "disks":
        return 403
    # Unlike at the API, who never could is told no more than who cannot here.
    visible = "see disks" if "disks" in need else "see"
    return 403 if granted(role, visible, owner) else 404


def forgetful() -> httpx.AsyncClient:
    """A client that keeps no cookies: each page would give it some, of one role after the other."""
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(trust_env=False, timeout=60, cookies=jar)


class PageMatrix(Matrix):
    """The people, their tokens and their things, at the pages."""

    async def run_pages(self) -> list[Cell]:
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(role: Role, page: Page, owner: str) -> Cell:
            async with limit:
                return await self.page_cell(role, page, owner)

        every = itertools.product(ROLES, pages(), OWNERS)
        return await asyncio.gather(*(one(role, page, owner) for role, page, owner in every))

    async def page_cell(self, role: Role, page: Page, owner: str) -> Cell:
        wanted = expected(role, page, owner)
        fresh = wanted is None and page.method == "POST" and owner != "absent"
        reservation, disk = self.reservations[owner], "nowhere" if owner == "absent" else "kept"
        if fresh and page.path in {*_WHOLE, _REMOVE}:
            if page.path.startswith("disks"):
                disk = await self.disk(owner, f"page-{next(self._numbers)}")
                if page.path.endswith("undelete"):
                    await self.call("DELETE", f"/disks/{disk}?user={owner}", self.tokens["admin"])
            else:
                reservation = await self.reservation(owner)
                if role.name_at_hub and owner == "ada":
                    await self.invite(reservation)
        token = self.narrowed(role, reservation if owner == "ada" else self.reservations["ada"])
        name = {"reservations": reservation, "disks": disk}.get(page.path.split("/")[0], "cpu-1")
        if page.path.startswith("admin/types"):
            name = "t4-small"
        address = f"{self.base}/{page.path.format(name)}"
        query = {"user": owner} if page.path.startswith("disks") else {}
        form = {"user": role.name_at_hub or "cleo"} if page.path == _REMOVE else {}
        headers = {"Sec-Fetch-Mode": "navigate"}
        if token is not None:
            headers["Authorization"] = f"token {token}"
        answer = await self.http.request(
            page.method, address, params=query, data=form or None, headers=headers
        )
        return PageCell(
            role.name, str(page), owner, wanted, _status(answer),
            _plain(answer, {reservation, disk, f"user={owner}"}), shape(answer),
        )  # fmt: skip


class PageCell(Cell):
    """Pages show what is wrong with a form by 422, and lead on after one that is right."""

    @property
    def right(self) -> bool:
        if self.expected is not None:
            return self.status == self.expected
        let_through = self.status < 400 and self.status != 302
        return let_through or self.status in {400, 409, 422} or self._not_there

    @property
    def _not_there(self) -> bool:
        return self.owner == "absent" and self.status == 404


def _status(answer: httpx.Response) -> int:
    """302 where it leads to the Hub's login; an own page's redirect is an answer like any other."""
    leads_on = answer.status_code in {302, 303}
    if leads_on and "/hub/api/oauth2/authorize" not in answer.headers["Location"]:
        return 303
    return answer.status_code


def _plain(answer: httpx.Response, names: set[str]) -> bytes:
    """The body without what is different in every answer, and without the name that was asked."""
    text: Any = answer.text
    for own in (answer.headers.get("X-Request-Id", ""), *names):
        if own:
            text = text.replace(own, "…")
    return re.sub(r'(nonce|data-now|data-xsrf|data-last-event)="[^"]*"', "", text).encode()

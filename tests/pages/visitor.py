"""A browser without JavaScript: keeps cookies, follows links, fills in forms as they are."""

from __future__ import annotations

from typing import Self
from urllib.parse import urljoin

import httpx
from bs4 import BeautifulSoup, Tag

PREFIX = "/services/gpudev/"


class Seen:
    """A page as it came."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.status = answer.status_code
        self.path = answer.url.raw_path.decode()
        self.soup = BeautifulSoup(answer.text, "html.parser")

    @property
    def text(self) -> str:
        """What a person reads, with single spaces."""
        body = self.soup.find("main") or self.soup
        return " ".join(body.get_text(" ").split())

    @property
    def result(self) -> str | None:
        found = self.soup.find(id="result")
        return found.get_text(strip=True) if found else None

    def form(self, action: str) -> Tag:
        """The form whose address ends so."""
        for form in self.soup.find_all("form"):
            if str(form["action"]).split("?")[0].endswith(action):
                return form
        raise AssertionError(f"no form {action!r} on {self.path}: {self.text}")

    def has_form(self, action: str) -> bool:
        return any(
            str(f["action"]).split("?")[0].endswith(action) for f in self.soup.find_all("form")
        )

    def link(self, text: str) -> str:
        """The address of the link that reads so (or begins so)."""
        for link in self.soup.find_all("a"):
            if " ".join(link.get_text(" ").split()).startswith(text):
                return str(link["href"])
        raise AssertionError(f"no link {text!r} on {self.path}: {self.text}")

    def links(self) -> list[str]:
        return [" ".join(link.get_text(" ").split()) for link in self.soup.find_all("a")]

    def values(self, form: Tag) -> dict[str, str]:
        """What a browser would send without anybody touching the form."""
        sent = {}
        for field in form.find_all(["input", "select", "textarea"]):
            name = field.get("name")
            if not name or (
                field.get("type") in {"checkbox", "radio"} and not field.has_attr("checked")
            ):
                continue
            if field.name == "select":
                options = field.find_all("option")
                chosen = next((o for o in options if o.has_attr("selected")), options[0])
                sent[str(name)] = str(chosen["value"])
            else:
                sent[str(name)] = str(field.get("value", ""))
        return sent


class Visitor:
    """One person's browser at one site."""

    def __init__(self, base: str, token: str | None = None) -> None:
        self.base = base
        self.http = httpx.AsyncClient(base_url=base, follow_redirects=True, timeout=30)
        if token:
            self.http.headers["Authorization"] = f"token {token}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def open(self, path: str = "", **headers: str) -> Seen:
        """A page by its address, or below the pages' prefix."""
        return Seen(await self.http.get(urljoin(PREFIX, path), headers=_navigates(headers)))

    async def send(self, page: Seen, action: str, **values: str) -> Seen:
        """The form of `page` with some fields filled in, as a browser sends it."""
        form = page.form(action)
        return await self.post(str(form["action"]), {**page.values(form), **values})

    async def post(self, address: str, values: dict[str, str], **headers: str) -> Seen:
        """A form's values, as they are."""
        answer = await self.http.post(
            urljoin(PREFIX, address), data=values, headers=_navigates(headers)
        )
        return Seen(answer)


def _navigates(headers: dict[str, str]) -> dict[str, str]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", **given}

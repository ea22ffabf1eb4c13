"""A person at the Hub's pages, by HTTP and without any script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import httpx
from bs4 import BeautifulSoup

from tests.fixtures.hub import RunningHub


@dataclass
class Form:
    """The fields of a page's form as a browser would send them, and the sentences at fields."""

    action: str = ""
    values: dict[str, str] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    buttons: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self, form_id: str) -> None:
        super().__init__()
        self.form = Form()
        self._id, self._inside = form_id, False
        self._select = self._fault = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {key: value or "" for key, value in attrs}
        if tag == "form":
            self._inside = at.get("id") == self._id
            if self._inside:
                self.form.action = at["action"]
        elif self._inside:
            self._field(tag, at)

    def _field(self, tag: str, at: dict[str, str]) -> None:
        name = at.get("name", "")
        if tag == "input" and at.get("type") in ("radio", "checkbox"):
            if "checked" in at:
                self.form.values[name] = at["value"]
        elif tag == "input":
            self.form.values[name] = at.get("value", "")
        elif tag == "button" and name:
            self.form.buttons[name] = at["value"]
        elif tag == "select":
            self._select = name
            self.form.options[name] = []
        elif tag == "option" and "disabled" not in at:
            if "selected" in at or not self.form.options[self._select]:
                self.form.values[self._select] = at["value"]
            self.form.options[self._select].append(at["value"])
        elif at.get("id", "").startswith("gpudev-fault-"):
            self._fault = at["id"].removeprefix("gpudev-fault-")

    def handle_data(self, data: str) -> None:
        if self._fault:
            self.form.faults[self._fault] = data.strip()
            self._fault = ""


def form_of(page: str, form_id: str = "spawn_form") -> Form:
    reader = _Reader(form_id)
    reader.feed(page)
    return reader.form


class Person:
    """Somebody who is logged in at a Hub."""

    def __init__(self, hub: RunningHub, name: str) -> None:
        self.hub, self.name = hub, name
        self.token = hub.user(name)
        self.http = httpx.Client(
            base_url=hub.url, trust_env=False, timeout=60.0, follow_redirects=True
        )
        self.http.get("/hub/login")
        self.http.post(
            "/hub/login", data={"username": name, "password": "password", "_xsrf": self.xsrf}
        ).raise_for_status()

    @property
    def xsrf(self) -> str:
        path = f"{self.hub.base_url}hub/"
        return next(
            c.value or "" for c in self.http.cookies.jar if (c.name, c.path) == ("_xsrf", path)
        )

    def close(self) -> None:
        self.http.close()

    def give_everything_back(self) -> None:
        """Ends all reservations, so that the next test finds all GPUs free."""
        for reservation in self.reservations("queued", "preparing", "active", "stopping"):
            self.hub.call("DELETE", f"/reservations/{reservation['id']}", self.token)
            self.until(reservation["id"], "cancelled", "failed", "expired")

    def form(self, server: str = "", query: str = "") -> Form:
        """The spawn page's form."""
        page = self.http.get(f"/hub/spawn/{quote(self.name)}/{server}".rstrip("/") + query)
        assert page.is_success, page.text
        return form_of(page.text)

    def send(self, form: Form, **changes: str | None) -> httpx.Response:
        """Sends a form, some of its fields changed or left out (None)."""
        values = {**form.values, **changes}
        fields = {key: (None, value) for key, value in values.items() if value is not None}
        origin = self.hub.url.removesuffix(self.hub.base_url[:-1])
        answer = self.http.post(origin + form.action, files=fields, follow_redirects=False)
        # httpx would keep the header of the body that it leaves out.
        return self.http.get(answer.headers["location"]) if answer.is_redirect else answer

    def api(self, method: str, path: str, json: Any = None) -> httpx.Response:
        """A call of the Hub's API with this person's token."""
        return self.http.request(
            method, f"/hub/api/{path}", json=json, headers={"Authorization": f"token {self.token}"}
        )

    def start(self, server: str, **options: Any) -> httpx.Response:
        return self.api("POST", f"users/{quote(self.name)}/servers/{server}", options or None)

    def progress(self, server: str = "") -> Iterator[dict[str, Any]]:
        """The Hub's own events about a start."""
        path = f"servers/{server}/progress" if server else "server/progress"
        url = f"/hub/api/users/{quote(self.name)}/{path}"
        headers = {"Authorization": f"token {self.token}"}
        with self.http.stream("GET", url, headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def reservations(self, *states: str) -> list[dict[str, Any]]:
        query = "&".join(f"state={state}" for state in states)
        answer = self.hub.call("GET", f"/reservations?{query}", self.token)
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def until(self, reservation: str, *states: str) -> dict[str, Any]:
        """The reservation once it is in one of `states`, by its own stream of events."""
        url = f"{self.hub.service}/api/v1/reservations/{reservation}/events"
        headers = {"Authorization": f"token {self.token}"}
        with self.http.stream("GET", url, headers=headers) as stream:
            for line in stream.iter_lines():
                found = re.match(r'data: .*"state":"(\w+)"', line)
                if found and found[1] in states:
                    break
            else:
                raise AssertionError(f"{reservation} never was {states}")
        got: dict[str, Any] = self.hub.call(
            "GET", f"/reservations/{reservation}", self.token
        ).json()
        return got


def said(page: str) -> str:
    """The Hub's error on a page, what it says there, and the sentences at the form's fields."""
    alerts = re.findall(r'class="[^"]*(?:alert-danger|fs-5)[^"]*"[^>]*>(.*?)<', page, re.DOTALL)
    lines = [
        line.get_text(" ", strip=True)
        for line in BeautifulSoup(page, "html.parser").select("h1, p")
    ]
    return f"{[alert.strip() for alert in alerts]} {lines} {form_of(page).faults}"

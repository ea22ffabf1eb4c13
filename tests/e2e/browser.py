"""A browser without JavaScript: cookies, links, and forms as they stand in the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx


@dataclass
class Form:
    """A form with the values that it would send untouched."""

    action: str
    enctype: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    #: Every value that a choice offers, by the field's name.
    offered: dict[str, list[str]] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.words: list[str] = []
        self._select: str | None = None
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag in ("script", "style"):
            self._silent += 1
        if tag == "form":
            method = given.get("method", "get").lower()
            enctype = given.get("enctype", "application/x-www-form-urlencoded")
            self.forms.append(Form(given.get("action", ""), enctype, method))
        elif self.forms:
            self._field(tag, given)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._silent -= 1
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words += data.split()

    def _field(self, tag: str, given: dict[str, str]) -> None:
        form, name, value = self.forms[-1], given.get("name", ""), given.get("value", "")
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            form.offered.setdefault(self._select, []).append(value)
            if "selected" in given or self._select not in form.fields:
                form.fields[self._select] = value
        elif tag == "input" and name and "disabled" not in given:
            if given.get("type") in ("radio", "checkbox"):
                form.offered.setdefault(name, []).append(value)
                if "checked" in given:
                    form.fields[name] = value
            else:
                form.fields[name] = value


@dataclass
class Page:
    """What came back."""

    answer: httpx.Response

    def __post_init__(self) -> None:
        reader = _Reader()
        if "html" in self.answer.headers.get("Content-Type", ""):
            reader.feed(self.answer.text)
        self.forms = reader.forms
        #: What can be read, in one line.
        self.text = " ".join(reader.words)

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def path(self) -> str:
        return self.answer.url.path

    def form(self, action: str) -> Form:
        """The form whose address contains `action`."""
        for form in self.forms:
            if action in form.action:
                return form
        raise AssertionError(f"no form to {action} in {self.path} ({self.status}): {self.text}")


class Browser:
    """One person's session at a Hub with the dummy authenticator."""

    def __init__(self, hub_url: str, name: str) -> None:
        self.url, self.name = hub_url, name
        self._http = httpx.Client(trust_env=False, timeout=60.0)
        page = self.open("/hub/login")
        page = self.send(page.form("/hub/login"), page, username=name, password="password")
        assert "/hub/login" not in page.path, page.text

    def open(self, path: str) -> Page:
        return self._follow(self._http.get(urljoin(self.url + "/", path)))

    def send(self, form: Form, page: Page, **values: str) -> Page:
        """Sends a form of `page` with `values` in place of what it holds."""
        where = urljoin(str(page.answer.url), form.action)
        fields = {**form.fields, **values}
        if form.enctype == "multipart/form-data":
            parts = {key: (None, value) for key, value in fields.items()}
            return self._follow(self._http.request(form.method, where, files=parts))
        return self._follow(self._http.request(form.method, where, data=fields))

    def _follow(self, answer: httpx.Response) -> Page:
        """Goes where the answer sends it, at most ten times; httpx would send a form's headers
        again."""
        for _ in range(10):
            if not answer.has_redirect_location:
                break
            answer = self._http.get(answer.url.join(answer.headers["Location"]))
        return Page(answer)

    def close(self) -> None:
        self._http.close()

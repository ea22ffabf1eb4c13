"""The page of `gpu-dev login`: asks, answers the command line, and leads nowhere else."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from .conftest import Site
from .visitor import Visitor

GOOD = {"port": "5000", "state": "s" * 22, "challenge": "c" * 43, "name": "ada's laptop <b>"}
SCOPES = ("custom:gpudev:reserve!user=ada", "tokens!user=ada")


@pytest.fixture
async def ada(site: Site) -> Visitor:
    return await site.log_in("ada", SCOPES)


def address(**changed: str | None) -> str:
    given = {name: value for name, value in {**GOOD, **changed}.items() if value is not None}
    return f"cli-login?{urlencode(given)}"


async def test_the_page_says_who_what_and_for_how_long(ada: Visitor) -> None:
    page = await ada.open(address())
    assert page.status == 200
    assert "You are logged in here as ada" in page.text
    assert "ada's laptop <b>" in page.text
    assert "reserve GPUs, extend and end your reservations" in page.text
    assert "30 days" in page.text
    assert (
        "form-action 'self' http://127.0.0.1:5000;"
        in page.answer.headers["Content-Security-Policy"]
    )


@pytest.mark.parametrize("answer", ["confirm", "refuse"])
async def test_the_answer_goes_to_the_command_line(ada: Visitor, answer: str) -> None:
    page = await ada.open(address())
    ada.http.follow_redirects = False
    sent = await ada.send(page, "/cli-login", answer=answer)
    assert sent.status == 303
    target = urlsplit(sent.answer.headers["Location"])
    assert (target.scheme, target.netloc, target.path) == ("http", "127.0.0.1:5000", "/callback")
    query = parse_qs(target.query)
    assert query["state"] == [GOOD["state"]]
    assert ("code" in query) == (answer == "confirm")
    assert query.get("error") == (["refused"] if answer == "refuse" else None)
    assert sent.answer.headers["Referrer-Policy"] == "no-referrer"
    assert sent.answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "changed",
    [
        {"port": "80"},
        {"port": "65536"},
        {"port": "5000@evil.example"},
        {"port": None},
        {"state": "short"},
        {"state": "s" * 21 + "\n"},
        {"challenge": "c" * 42},
        {"challenge": "c" * 42 + "="},
        {"name": "two\nlines"},
        {"name": "n" * 101},
        {"redirect": "http://evil.example"},
    ],
)
async def test_what_is_not_as_agreed_leads_nowhere(ada: Visitor, changed: dict[str, Any]) -> None:
    page = await ada.open(address(**changed))
    assert page.status == 400
    good = await ada.open(address())
    ada.http.follow_redirects = False
    fields = {**good.values(good.form("/cli-login")), "answer": "confirm"}
    sent = await ada.post("cli-login", {k: v for k, v in {**fields, **changed}.items() if v})
    assert sent.status == 400
    assert "Location" not in sent.answer.headers


async def test_a_form_of_another_site_makes_no_code(ada: Visitor) -> None:
    ada.http.follow_redirects = False
    sent = await ada.post("cli-login", {**GOOD, "answer": "confirm"})
    assert sent.status == 403


async def test_a_login_that_may_not_make_tokens_is_told_the_other_way(site: Site) -> None:
    grace = await site.log_in("grace")
    page = await grace.send(await grace.open(address()), "/cli-login", answer="confirm")
    assert page.status == 403
    assert "gpu-dev login --with-token" in page.text

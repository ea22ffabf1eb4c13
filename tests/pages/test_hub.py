"""The pages behind a real Hub and its proxy: login, forms, and that other people stay outside."""

from __future__ import annotations

import httpx
import pytest
from bs4 import BeautifulSoup

from tests.fixtures.hub import ADMIN, RunningHub

pytestmark = pytest.mark.hub


def page(http: httpx.Client, address: str) -> BeautifulSoup:
    answer = http.get(address)
    assert answer.status_code == 200, answer.text
    return BeautifulSoup(answer.text, "html.parser")


def send(
    http: httpx.Client, hub: RunningHub, soup: BeautifulSoup, ending: str, **typed: str
) -> str:
    form = next(f for f in soup.find_all("form") if str(f["action"]).endswith(ending))
    fields = {str(i["name"]): str(i.get("value", "")) for i in form.find_all("input")}
    answer = http.post(f"{hub.url}{form['action']}", data={**fields, **typed})
    assert answer.status_code == 200, answer.text
    found = BeautifulSoup(answer.text, "html.parser").find(id="result")
    return found.get_text() if found else ""


def test_a_person_logs_in_and_works_with_forms(running_hub: RunningHub) -> None:
    hub = running_hub
    token = hub.user("pia")
    hub.user("quentin")
    with hub.browser("pia") as http:
        start = page(http, f"{hub.service}/")
        style = start.find("link", rel="stylesheet")
        assert style is not None
        assert http.get(f"{hub.url}{style['href']}").status_code == 200
        disks = page(http, f"{hub.service}/disks")
        assert send(http, hub, disks, "/disks", name="work") == "The disk work is there."
        made = hub.call("GET", "/disks", token)
        assert [disk["name"] for disk in made.json()["items"]] == ["work"]
        assert http.get(f"{hub.service}/admin").status_code == 403
        assert http.get(f"{hub.service}/fleet").status_code == 200
        with hub.browser("quentin") as other:
            assert other.get(f"{hub.service}/disks/work?user=pia").status_code == 404
        asked = {"name": "x", "_xsrf": "wrong"}
        assert http.post(f"{hub.service}/disks", data=asked).status_code == 403
    assert httpx.get(f"{hub.service}/").status_code == 302


def test_what_follows_a_refusal_gets_its_answer_through_the_proxy(running_hub: RunningHub) -> None:
    """A page that was refused before its body was read ended the connection without saying so, and
    the proxy sent the next request into it: half of these were "503"."""
    hub = running_hub
    hub.user("rita")
    with hub.browser("rita") as http:
        for _ in range(20):
            assert http.get(f"{hub.service}/admin").status_code == 403
            assert http.get(f"{hub.service}/fleet").status_code == 200


def test_an_admin_drains_a_node(running_hub: RunningHub) -> None:
    hub = running_hub
    with hub.browser(ADMIN) as http:
        admin = page(http, f"{hub.service}/admin")
        node = next(
            str(f["action"]) for f in admin.find_all("form") if str(f["action"]).endswith("/drain")
        ).split("/")[-2]
        done = send(http, hub, admin, f"/{node}/drain", reason="a fan")
        assert done.startswith(f"{node} is drained")
        again = page(http, f"{hub.service}/admin")
        assert send(http, hub, again, f"/{node}/undrain") == f"{node} is used again."

"""Calls with a browser's login, and the whole way of `gpu-dev login`, on each line of the Hub."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.fixtures.hub import ADMIN, RunningHub
from tests.tiers import hub5_python

pytestmark = pytest.mark.hub

VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
STATE = "s" * 22


@pytest.fixture(scope="module")
def oldest_hub() -> Iterator[RunningHub]:
    hub = RunningHub(python=hub5_python())
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


@pytest.fixture(
    params=["newest", pytest.param("oldest", marks=[pytest.mark.hub5, pytest.mark.slow])]
)
def hub(request: pytest.FixtureRequest) -> RunningHub:
    """JupyterHub 6, and the oldest that is supported."""
    name = "running_hub" if request.param == "newest" else "oldest_hub"
    found: RunningHub = request.getfixturevalue(name)
    return found


def xsrf(http: httpx.Client) -> str:
    return next(
        str(cookie.value)
        for cookie in http.cookies.jar
        if cookie.name == "_xsrf" and cookie.path.startswith("/services/gpudev")
    )


def test_our_pages_scripts_may_call_and_other_pages_may_not(hub: RunningHub) -> None:
    with hub.browser("wim") as http:
        url = f"{hub.service}/api/v1/disks"
        token = {"X-XSRFToken": xsrf(http)}
        script = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
        assert http.get(url, headers={**script, **token}).status_code == 200
        for headers in (script, {**script, "X-XSRFToken": "wrong"}):
            assert http.get(url, headers=headers).status_code == 403
        made = http.post(url, json={"name": "d1"}, headers={**script, **token})
        assert made.status_code == 201, made.text
        for headers in ({}, script, {**script, "X-XSRFToken": "wrong"}):
            answer = http.post(url, json={"name": "d2"}, headers=headers)
            assert answer.status_code == 403
            assert "X-XSRFToken" in answer.json()["error"]["message"]
        names = [disk["name"] for disk in http.get(url, headers=token).json()["items"]]
        assert names == ["d1"]


def test_without_a_login_the_api_does_not_redirect(hub: RunningHub) -> None:
    answer = hub.call("GET", "/me")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("user", ["xia", ADMIN])
def test_a_login_of_the_command_line(hub: RunningHub, user: str) -> None:
    query = f"port=4711&state={STATE}&challenge={CHALLENGE}&name=laptop"
    with hub.browser(user) as http:
        page = http.get(f"{hub.service}/cli-login?{query}")
        assert page.status_code == 200, page.text
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        sent = {**fields, "answer": "confirm"}
        answer = http.post(f"{hub.service}/cli-login", data=sent, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    callback = urlsplit(answer.headers["Location"])
    assert (callback.hostname, callback.port, callback.path) == ("127.0.0.1", 4711, "/callback")
    given = parse_qs(callback.query)
    assert given["state"] == [STATE]
    code = given["code"][0]
    made = hub.call("POST", "/cli-tokens", json={"code": code, "verifier": VERIFIER})
    assert made.status_code == 201, made.text
    token = made.json()["token"]
    me = hub.call("GET", "/me", token).json()
    assert (me["name"], me["admin"]) == (user, user == ADMIN)
    # It reserves, and makes no further tokens.
    sent_request = {"gpu_type": "t4", "hours": 1}
    assert hub.call("POST", "/plan", token, sent_request).status_code == 200
    with pytest.raises(httpx.HTTPStatusError):
        hub.api("POST", f"users/{user}/tokens", {}, token=token)
    assert code not in hub.logs()
    assert token not in hub.logs()
    assert VERIFIER not in hub.logs()


def test_a_revoked_token_is_out_within_seconds(hub: RunningHub) -> None:
    """The Hub's word is believed for three seconds; the test waits for it, not for a clock."""
    hub.user("yan")
    token = hub.new_token("yan")
    assert hub.call("GET", "/me", token["token"]).status_code == 200
    hub.revoke("yan", token["id"])
    statuses = set()
    while 401 not in statuses:
        statuses.add(hub.call("GET", "/me", token["token"]).status_code)
    assert statuses <= {200, 401}


def test_a_server_token_reaches_its_own_reservation_only(hub: RunningHub) -> None:
    token = hub.user("zoe")
    later = {"gpu_type": "h100", "hours": 1, "starts_at": "2026-12-26T00:00:00Z"}
    own, other = (hub.call("POST", "/reservations", token, later).json()["id"] for _ in range(2))
    server = hub.token("zoe", [f"custom:gpudev:reserve!server=zoe/{own}"])
    assert hub.call("GET", f"/reservations/{own}", server).status_code == 200
    assert hub.call("GET", f"/reservations/{other}", server).status_code == 404
    listed = hub.call("GET", "/reservations", server).json()["items"]
    assert [reservation["id"] for reservation in listed] == [own]
    assert hub.call("POST", "/reservations", server, later).status_code == 403
    assert hub.call("GET", "/disks", server).status_code == 403
    assert hub.call("DELETE", f"/reservations/{own}", server).json()["state"] == "cancelled"

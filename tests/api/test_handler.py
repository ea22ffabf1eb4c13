"""What every request goes through: limits, refusals in one form, headers, logs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpudev_service.api.logs import JsonFormatter
from gpudev_service.api.route import Call
from gpudev_service.api.routes import ROUTES
from gpudev_service.store.engine import Store
from tests.fixtures.hub import ADMIN, RunningHub

from .site import Site, running

pytestmark = [
    pytest.mark.hub,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


@pytest.fixture
def tom(running_hub: RunningHub) -> str:
    return running_hub.user("tom")


def error(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field", "accepted"}
    return answer.status_code, body["error"]["code"]


async def test_an_action_that_is_not_known_is_refused_by_name(site: Site, tom: str) -> None:
    answer = await site.call("PATCH", "/reservations", tom, {"action": "extend"})
    assert error(answer) == (405, "unknown_action")
    assert answer.json()["error"]["accepted"] == ["GET", "POST"]
    assert answer.headers["Allow"] == "GET, POST"
    made = await site.call("POST", "/reservations/abcdefghij012345/extend", tom, {"hours": 1})
    assert error(made) == (404, "not_found")
    assert (await site.call("GET", "/reservations", tom)).json()["items"] == []
    strange = await site.call("EXTEND", "/reservations", tom)
    assert error(strange) == (405, "unknown_action")


@pytest.mark.parametrize(
    "path", ["/%2e%2e/x", "/reservations/", "//", "/reservations/%00", "/x" * 500]
)
async def test_odd_addresses_are_not_there(path: str, site: Site) -> None:
    assert (await site.call("GET", path)).status_code in {401, 404}


async def test_a_token_in_the_address_is_refused(site: Site, tom: str) -> None:
    assert error(await site.call("GET", f"/me?token={tom}")) == (401, "not_authenticated")
    # Beside a good one it is refused as well: it has been written somewhere by now.
    assert error(await site.call("GET", f"/me?token={tom}", tom)) == (401, "not_authenticated")


@pytest.mark.parametrize(
    "header", ["", "token", "Basic dG9tOnRvbQ==", "token \xff\xfe", "token " + "x" * 5000]
)
async def test_what_is_no_token_is_no_login(header: str, site: Site) -> None:
    headers = [(b"Authorization", header.encode("latin-1"))]
    answer = await site.http.get(f"{site.base}/api/v1/me", headers=headers)
    assert error(answer) == (401, "not_authenticated")
    assert "gpu-dev login" in answer.json()["error"]["message"]
    assert answer.headers["WWW-Authenticate"]


async def test_a_token_that_was_made_for_something_else_is_not_let_in(
    site: Site, running_hub: RunningHub
) -> None:
    running_hub.user("tom")
    wanted = {"scopes": ["custom:gpudev:reserve!user=tom", "access:servers!user=tom"]}
    made = running_hub.api("POST", "users/tom/tokens", wanted)
    answer = await site.call("GET", "/me", made["token"])
    assert error(answer) == (403, "not_allowed")
    assert "may not be used at gpudev" in answer.json()["error"]["message"]


async def test_bearer_is_a_token_too(site: Site, tom: str) -> None:
    answer = await site.call("GET", "/me", headers={"Authorization": f"Bearer {tom}"})
    assert answer.json()["name"] == "tom"


async def test_a_body_may_be_64_kib(site: Site, tom: str) -> None:
    padding = b" " * (64 * 1024)
    raw = b'{"name": "d1"}'
    fits = raw + padding[: 64 * 1024 - len(raw)]
    headers = {"Content-Type": "application/json"}
    assert (await site.call("POST", "/disks", tom, content=fits, headers=headers)).is_success
    larger = await site.call("POST", "/disks", tom, content=fits + b" ", headers=headers)
    assert error(larger) == (413, "too_large")

    async def chunks() -> Any:
        for _ in range(65):
            yield b" " * 1024

    answer = await site.http.post(
        f"{site.base}/api/v1/disks", content=chunks(),
        headers={**headers, "Authorization": f"token {tom}"},
    )  # fmt: skip
    assert error(answer) == (413, "too_large")


async def test_a_connection_is_kept_after_a_refusal(site: Site, tom: str) -> None:
    """The proxy uses its connections again; one that was closed behind its back is a 503."""
    async with httpx.AsyncClient(
        trust_env=False, limits=httpx.Limits(max_connections=1), timeout=30
    ) as http:
        for token, status in (("", 401), (tom, 200), ("wrong", 401), (tom, 200)):
            headers = {"Authorization": f"token {token}"} if token else {}
            answer = await http.post(f"{site.base}/api/v1/plan", json={"x": 1}, headers=headers)
            assert answer.status_code == (422 if status == 200 else status)
            assert answer.headers.get("Connection", "") != "close"


async def test_a_form_of_another_site_is_no_request(site: Site, tom: str) -> None:
    answer = await site.call(
        "POST", "/disks", tom, content=b'{"name": "d1"}', headers={"Content-Type": "text/plain"}
    )
    assert error(answer) == (400, "bad_request")


async def test_answers_are_safe_to_look_at(site: Site, tom: str) -> None:
    for answer in (await site.call("GET", "/me", tom), await site.call("GET", "/me")):
        assert answer.headers.get("X-Content-Type-Options") == "nosniff"
        assert answer.headers.get("Cache-Control") == "no-store"
        assert "frame-ancestors 'none'" in answer.headers.get("Content-Security-Policy", "")
        assert "Server" not in answer.headers
        assert len(answer.headers["X-Request-Id"]) == 16


async def test_a_defect_is_told_by_its_number_only(
    running_hub: RunningHub, store: Store, tmp_path: Path, tom: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    async def operation(call: Call[Any, Any]) -> Any:
        raise RuntimeError("the password is in /etc/gpudev/secret")

    routes = tuple(
        dataclasses.replace(route, operation=operation) if route.name == "me" else route
        for route in ROUTES
    )
    async with running(running_hub, store, tmp_path, routes=routes) as site:
        answer = await site.call("GET", "/me", tom)
    assert error(answer) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["X-Request-Id"] in answer.json()["error"]["message"]
    assert any("secret" in str(record.exc_info) for record in caplog.records if record.exc_info)


async def test_while_the_hub_is_away_nobody_is_believed(
    running_hub: RunningHub, store: Store, tmp_path: Path, tom: str
) -> None:
    nobody = "http://127.0.0.1:9/hub/api"
    async with running(running_hub, store, tmp_path, hub_url=nobody) as site:
        answer = await site.call("GET", "/me", tom)
        assert error(answer) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert (await site.call("GET", "/health")).status_code == 200


async def test_strangers_are_limited_and_others_are_not(
    running_hub: RunningHub, store: Store, tmp_path: Path, tom: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "gpudev.access")
    fresh = running_hub.token("tom")
    async with running(running_hub, store, tmp_path, anonymous=(0.001, 5)) as site:
        assert (await site.call("GET", "/me", tom)).status_code == 200
        statuses = [(await site.call("GET", "/me")).status_code for _ in range(50)]
        assert statuses == [401] * 5 + [429] * 45
        # A token that was not seen before is asked about all the same.
        assert (await site.call("GET", "/me", fresh)).status_code == 200
        guesses = [(await site.call("GET", "/me", f"wrong-{n}")).status_code for n in range(20)]
        assert guesses == [401] * 5 + [429] * 15
        assert (await site.call("GET", "/me", tom)).status_code == 200
    lines = [r for r in caplog.records if r.name == "gpudev.access"]
    assert len(lines) <= 2 * 5 + 3 + 2
    assert all(len(JsonFormatter().format(line)) < 1024 for line in lines)


async def test_a_prober_is_never_refused(
    running_hub: RunningHub, store: Store, tmp_path: Path
) -> None:
    """An orchestrator that asks whether the process lives ends it when it is told to come later."""
    async with running(running_hub, store, tmp_path, anonymous=(0.001, 5)) as site:
        for method in ("GET", "HEAD"):
            asked = [(await site.call(method, "/health/live")).status_code for _ in range(30)]
            assert asked == [200] * 30
        others = [(await site.call("GET", "/openapi.json")).status_code for _ in range(10)]
        assert others == [200] * 5 + [429] * 5
        assert (await site.call("GET", "/health/live")).status_code == 200
        assert (await site.call("GET", "/health")).status_code == 429
        assert (await site.call("POST", "/health/live")).status_code == 429


async def test_every_request_is_one_line_without_secrets(
    site: Site, tom: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await site.call("GET", "/reservations?user=tom&cursor=s3cr3t-query", tom)
    await site.call("POST", "/reservations", tom, {"gpu_type": "s3cr3t-body", "hours": 1})
    lines = [JsonFormatter().format(r) for r in caplog.records if r.name == "gpudev.access"]
    first = json.loads(lines[0])
    assert first["request_id"] == answer.headers["X-Request-Id"]
    assert (first["route"], first["status"], first["caller"]) == ("list_reservations", 422, "tom")
    assert len(lines) == 2
    ours = [record for record in caplog.records if record.name != "httpx"]  # the tests' own client
    everything = "\n".join(JsonFormatter().format(record) for record in ours)
    assert "s3cr3t" not in everything
    assert tom not in everything


async def test_cursors_that_are_not_ours_are_refused(site: Site, tom: str) -> None:
    for path in ("/reservations", "/disks", "/gpu-types", "/availability"):
        for cursor in ("x", "e30", "WzFd" * 100, "WyIyMDI2Il0", "_" * 512):
            answer = await site.call("GET", f"{path}?cursor={cursor}", tom)
            assert answer.status_code in {200, 422}, (path, cursor, answer.text)
    assert error(await site.call("GET", "/gpu-types?cursor=x", tom)) == (422, "invalid_input")


async def test_a_list_comes_page_by_page(site: Site, tom: str) -> None:
    for number in range(5):
        await site.call("POST", "/disks", tom, {"name": f"d{number}"})
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await site.call("GET", f"/disks?limit=2{cursor}", tom)).json()
        seen += [disk["name"] for disk in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [f"d{number}" for number in range(5)]


async def test_metrics_are_for_admins_and_prometheus(
    site: Site, tom: str, running_hub: RunningHub
) -> None:
    url = f"{site.base}/metrics"
    root = running_hub.user(ADMIN)
    assert error(await site.http.get(url)) == (401, "not_authenticated")
    assert error(await site.http.get(url, headers={"Authorization": f"token {tom}"}))[0] == 403
    answer = await site.http.get(url, headers={"Authorization": f"token {root}"})
    assert answer.status_code == 200
    assert 'gpudev_requests_total{route="metrics",status="403"} 1.0' in answer.text
    assert 'gpudev_units{gpu_type="h100",use="free"} 8.0' in answer.text
    assert "gpudev_leases_overdue 0.0" in answer.text


async def test_policy_follows_the_groups_of_whom_it_is_for(
    site: Site, running_hub: RunningHub
) -> None:
    running_hub.user("uma", "lab")
    root = running_hub.user(ADMIN)
    missing = {"gpu_type": "t4", "hours": 1, "user": "nobody-of-that-name"}
    assert error(await site.call("POST", "/plan", root, missing)) == (422, "invalid_input")
    made = await site.call(
        "POST", "/reservations", running_hub.spawner_token,
        {"gpu_type": "t4", "hours": 1, "user": "uma"},
    )  # fmt: skip
    owner = made.json()
    assert owner["user"] == "uma"
    history = await site.call("GET", f"/reservations/{owner['id']}/history", root)
    assert history.json()["items"][0]["actor"] == "uma"
    leader = running_hub.user("leo")
    assert (await site.call("GET", f"/reservations/{owner['id']}", leader)).status_code == 200


async def test_types_show_the_limits_of_whom_one_may_reserve_for(
    site: Site, tom: str, running_hub: RunningHub
) -> None:
    """The Hub's form is asked for by the spawner, and shows the person's own limits."""
    running_hub.user("una", "lab")
    spawner = running_hub.spawner_token
    for path in ("/gpu-types", "/availability"):
        assert (await site.call("GET", f"{path}?user=una", spawner)).status_code == 200
        assert error(await site.call("GET", f"{path}?user=una", tom)) == (403, "not_allowed")
        assert (await site.call("GET", f"{path}?user=tom", tom)).status_code == 200
        unknown = await site.call("GET", f"{path}?user=nobody-of-that-name", spawner)
        assert error(unknown) == (422, "invalid_input")


async def test_a_person_does_not_name_servers(site: Site, tom: str) -> None:
    sent = {"gpu_type": "t4", "hours": 1, "server_name": "mine"}
    assert error(await site.call("POST", "/reservations", tom, sent)) == (403, "not_allowed")


@pytest.mark.parametrize("hand", ["spawner_token", "overgranted_token"])
async def test_the_spawner_says_who_is_in_which_group(
    site: Site, running_hub: RunningHub, hand: str
) -> None:
    """What it says decides, without a question to the Hub; that it holds more scopes than it needs
    changes nothing, or no server would start any more."""
    running_hub.user("zoe")
    leader = running_hub.user("leo")  # who sees what is of the group "lab"
    for server, groups, seen in (("a", ["lab"], 200), ("b", [], 404)):
        sent = {"gpu_type": "t4-small", "hours": 1, "user": "zoe", "server_name": server + hand}
        asked = {**sent, "owner_groups": groups}
        made = await site.call("POST", "/reservations", getattr(running_hub, hand), asked)
        assert made.status_code == 201, made.text
        found = await site.call("GET", f"/reservations/{made.json()['id']}", leader)
        assert found.status_code == seen


async def test_nobody_else_says_who_is_in_which_group(
    site: Site, tom: str, running_hub: RunningHub
) -> None:
    told = {"gpu_type": "t4", "hours": 1, "owner_groups": ["lab"]}
    for token in (tom, running_hub.user(ADMIN)):
        refused = await site.call("POST", "/reservations", token, told)
        assert error(refused) == (403, "not_allowed")
        assert refused.json()["error"]["field"] == "owner_groups"


async def test_requests_that_come_together_ask_the_hub_once(site: Site, tom: str) -> None:
    answers = await asyncio.gather(*(site.call("GET", "/me", tom) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}


async def test_lists_show_what_the_caller_may_see(
    site: Site, tom: str, running_hub: RunningHub
) -> None:
    uma, leader = running_hub.user("uma", "lab"), running_hub.user("leo")
    sent = {"gpu_type": "t4", "hours": 1, "name": "secret project"}
    mine = (await site.call("POST", "/reservations", tom, sent)).json()["id"]
    hers = (await site.call("POST", "/reservations", uma, sent)).json()["id"]

    async def listed(token: str, query: str) -> list[str]:
        answer = await site.call("GET", f"/reservations{query}", token)
        assert answer.status_code == 200, answer.text
        return [reservation["id"] for reservation in answer.json()["items"]]

    assert await listed(tom, "") == await listed(tom, "?user=*") == [mine]
    assert await listed(leader, "?user=*") == await listed(leader, "?user=uma") == [hers]
    assert await listed(leader, "?user=tom") == await listed(leader, "") == []
    assert await listed(running_hub.spawner_token, "") == [hers, mine]
    refused = [
        (await site.call("GET", f"/reservations?user={name}", tom)).content
        for name in ("uma", "nobody-of-that-name")
    ]
    assert refused[0] == refused[1]
    assert b"not_allowed" in refused[0]


async def test_the_fleet_tells_nobody_whose_it_is(
    site: Site, tom: str, running_hub: RunningHub
) -> None:
    uma = running_hub.user("uma", "lab")
    sent = {"gpu_type": "t4-small", "hours": 1, "name": "secret project"}
    for _ in range(2):  # one runs, one waits
        await site.call("POST", "/reservations", uma, sent)
    seen = await site.call("GET", "/cluster", tom)
    assert "uma" not in seen.text
    assert "secret" not in seen.text
    small = next(node for node in seen.json()["nodes"] if node["name"] == "small-1")
    assert (small["free"], len(small["held"]), len(seen.json()["queue"])) == (0, 1, 1)
    hers = (await site.call("GET", "/cluster", uma)).json()
    assert hers["queue"][0]["name"] == "secret project"


async def test_the_fleet_is_read_in_pages(site: Site, tom: str) -> None:
    for _ in range(3):  # one runs, two wait
        await site.call("POST", "/reservations", tom, {"gpu_type": "t4-small", "hours": 1})
    whole = (await site.call("GET", "/cluster", tom)).json()
    assert (whole["queue_lengths"], whole["next_cursor"]) == ({"t4-small": 2}, None)
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        asked = f"?limit=2&queue=0{cursor and f'&cursor={cursor}'}"
        page = (await site.call("GET", f"/cluster{asked}", tom)).json()
        assert len(page["nodes"]) <= 2
        assert (page["queue"], page["queue_lengths"]) == ([], {"t4-small": 2})
        found, cursor = found + page["nodes"], page["next_cursor"]
    assert found == whole["nodes"]
    for wrong, field in (("queue=201", "queue"), ("limit=0", "limit"), ("cursor=x", "cursor")):
        refused = await site.call("GET", f"/cluster?{wrong}", tom)
        assert error(refused) == (422, "invalid_input")
        assert refused.json()["error"]["field"] == field


async def test_storage_that_refuses_says_so_in_its_own_words(
    site: Site, tom: str, tmp_path: Path
) -> None:
    staging = tmp_path / "disks" / "staging"
    staging.rmdir()
    answer = await site.call("POST", "/disks", tom, {"name": "work"})
    assert error(answer) == (503, "unavailable")
    said = answer.json()["error"]["message"]
    assert said == "The file system of the disks refused the work."
    staging.mkdir()
    assert (await site.call("GET", "/disks/work/contents", tom)).is_success

"""The endpoints behind the panel, one by one: nobody without a session, and to each person only
what the service lets them do with their own token. On both supported lines of JupyterHub."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_lab.handlers import handlers
from tests import tiers
from tests.e2e.people import Person
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub
from tests.tiers import ROOT

from .lab import base, running

#: JupyterHub's own server without JupyterLab, which takes a third of the time to start.
HUB = 'c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"'
SERVICE = 'c.GpuDev.times = {"turnover": 30, "warnings": []}'

#: Every call, with a body that is good and the status that the owner gets. The last one ends it.
CALLS: list[tuple[str, str, Any, int]] = [
    ("GET", "lease", None, 200),
    ("POST", "extension", {"hours": 1}, 200),
    ("PUT", "collaborators/carol", {"role": "view"}, 200),
    ("DELETE", "collaborators/carol", None, 200),
    ("POST", "snapshot", {}, 200),
    ("POST", "keep", {}, 409),  # policy does not look at idleness here
    ("POST", "saved", {"id": "nobody-asked", "saved": 0}, 204),
    ("POST", "release", {}, 200),
]
#: What everybody who may use the server may do; the rest is the owner's.
SHARED = {"lease", "saved"}
#: Handlers that bring their own authentication, and where that is tested.
EXCEPTED = {"SshHandler": "tests/ssh"}
METHODS = {"get", "post", "put", "delete", "patch", "head", "options"}


class Session:
    """A browser without JavaScript in which somebody has opened a reservation's server."""

    def __init__(self, person: Person, lease: Reservation) -> None:
        self._http = httpx.Client(trust_env=False, timeout=60.0, follow_redirects=True)
        self._base = base(person.hub, lease)
        page = self._http.get(f"{person.hub.url}/hub/login")
        field = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert field is not None
        sent = {"username": person.name, "password": "password", "_xsrf": field[1]}
        self._http.post(f"{person.hub.url}/hub/login", data=sent).raise_for_status()
        # Any page that wants a login and is not an API: by way of the Hub, and back.
        asked = self._http.get(f"{self._base}/files/nothing.txt")
        if "/oauth2/authorize" in str(asked.url) and asked.is_success:
            field = re.search(r'name="_xsrf" value="([^"]+)"', asked.text)
            assert field is not None
            scopes = re.findall(r'name="scopes" value="([^"]+)"', asked.text)
            self._http.post(
                str(asked.url),
                data={"_xsrf": field[1], "scopes": scopes},
                headers={"Referer": str(asked.url)},
            )

    def call(self, method: str, path: str, body: Any) -> httpx.Response:
        path_of = {cookie.path: cookie.value for cookie in self._http.cookies.jar
                   if cookie.name == "_xsrf"}  # fmt: skip
        longest = max(path_of, key=len)
        return self._http.request(
            method,
            f"{self._base}/gpudev/{path}",
            json=body,
            headers={"X-XSRFToken": cast("str", path_of[longest])},
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


@pytest.fixture(
    params=[
        pytest.param(None, id="hub6", marks=pytest.mark.hub),
        pytest.param("5", id="hub5", marks=pytest.mark.hub5),
    ],
    scope="module",
)
def hub(request: pytest.FixtureRequest) -> Iterator[RunningHub]:
    python = tiers.hub5_python() if request.param else sys.executable
    hub = RunningHub(python=python, hub_config=HUB, service_config=SERVICE)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


def test_every_call_is_asked_of_everybody(hub: RunningHub) -> None:
    ada, bob, eve = Person(hub, "ada"), Person(hub, "bob"), Person(hub, "eve")
    hub.user("carol")
    lease = running(ada, hours=1, disk="work", create_disk=True)
    assert ada.call("PUT", f"/reservations/{lease.id}/collaborators/bob", {}).is_success
    until(lambda: bob.call("GET", f"/reservations/{lease.id}").is_success, "bob sees the lease")
    until(lambda: _reaches(bob, lease), "bob may open the server")
    with Session(eve, lease) as stranger, Session(bob, lease) as collaborator:
        _others_may_not(hub, lease, stranger, collaborator)
    untouched = ada.look(lease.id)
    assert (untouched.state, untouched.extended_hours) == (State.ACTIVE, 0.0)
    assert [one.user for one in untouched.collaborators] == ["bob"]
    with Session(ada, lease) as owner:
        for method, path, body, expected in CALLS:
            said = owner.call(method, path, body)
            assert said.status_code == expected, ("owner", method, path, said.text)
    assert ada.until_over(lease.id, State.CANCELLED).extended_hours == 1.0
    for one in (ada, bob, eve):
        one.close()


def _others_may_not(
    hub: RunningHub, lease: Reservation, stranger: Session, collaborator: Session
) -> None:
    for method, path, body, _ in CALLS:
        answers = {
            "anonymous": httpx.request(
                method, f"{base(hub, lease)}/gpudev/{path}", json=body, trust_env=False
            ),
            "a made-up token": httpx.request(
                method,
                f"{base(hub, lease)}/gpudev/{path}",
                json=body,
                headers={"Authorization": "token 0123456789abcdef"},
                trust_env=False,
            ),
            "stranger": stranger.call(method, path, body),
        }
        for who, answer in answers.items():
            assert answer.status_code == 403, (who, method, path, answer.text)
            assert "traceback" not in answer.text.lower()
        said = collaborator.call(method, path, body)
        allowed = (200, 204) if path in SHARED else (403,)
        assert said.status_code in allowed, ("collaborator", method, path, said.text)


def _reaches(person: Person, lease: Reservation) -> bool:
    answer = httpx.get(
        f"{base(person.hub, lease)}/gpudev/lease",
        headers={"Authorization": f"token {person.token}"},
        trust_env=False,
    )
    return answer.status_code == httpx.codes.OK


def test_the_table_above_has_every_call() -> None:
    state: Any = None
    known = {
        (method.upper(), re.compile(f"{path}$"))
        for path, kind, _ in handlers(state)
        for method in METHODS
        if method in vars(kind)
    }
    for method, path in known:
        assert any(
            method == called and path.fullmatch(f"gpudev/{where}") for called, where, _, _ in CALLS
        ), (method, path.pattern)


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "labextension" / "gpudev_lab").rglob("*.py")),
    ids=lambda path: cast("Path", path).name,
)
def test_every_handler_of_the_extension_wants_a_person(path: Path) -> None:
    """Also one that nobody has put into a table."""
    open_ones = [
        f"{kind.name}.{method.name}"
        for kind in ast.walk(ast.parse(path.read_text()))
        if isinstance(kind, ast.ClassDef)
        and any("Handler" in ast.unparse(parent) for parent in kind.bases)
        and kind.name not in EXCEPTED
        for method in kind.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and method.name in METHODS
        and not {"web.authenticated", "authorized"}
        <= {ast.unparse(decorator) for decorator in method.decorator_list}
    ]
    assert not open_ones

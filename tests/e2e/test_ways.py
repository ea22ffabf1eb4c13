"""Every usual way to start a server ends in a reservation or in a clear refusal.

After each of them the Hub's servers, the reservations and the processes are compared as a whole:
there is never a server, or a process with GPUs, without a lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from gpudev_client.states import State
from tests.fixtures.hub import RunningHub
from tests.fixtures.processes import kill_all

from .conftest import SHORT
from .database import Database
from .invariants import assert_sound, marked
from .people import Person
from .waiting import until

pytestmark = pytest.mark.hub

FORM = {"gpu_type": "t4", "gpus:t4": "1", "hours": "1", "disk_choice": "none"}
OPTIONS = {"gpu_type": "t4", "gpus": 1, "hours": 1}


#: A proxy that takes its time with a route; what is not waited for shows.
SLOW_ROUTES = """
import asyncio
from jupyterhub.proxy import ConfigurableHTTPProxy

class SlowRoutes(ConfigurableHTTPProxy):
    async def add_user(self, *args, **kwargs):
        await asyncio.sleep(1)
        await super().add_user(*args, **kwargs)

c.JupyterHub.proxy_class = SlowRoutes
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(service_config=SHORT, hub_config=SLOW_ROUTES)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


@pytest.fixture(autouse=True)
def compared(hub: RunningHub) -> Iterator[None]:
    yield
    database = Database(hub)
    assert_sound(hub, database)
    database.close()


Make = Callable[[str], Person]


@pytest.mark.parametrize(
    ("path", "server"), [("/hub/spawn", ""), ("/hub/spawn/way-form-mine/mine", "mine")]
)
def test_the_form_of_any_server_makes_its_reservation(person: Make, path: str, server: str) -> None:
    ada = person(f"way-form-{server or 'default'}")
    page = ada.fill_form(path, **FORM)
    assert "/hub/spawn-pending/" in page.path, page.text
    made = ada.of_server(server)
    assert made is not None
    ada.until_state(made.id, State.ACTIVE)
    ada.stop(server)
    ada.until_over(made.id, State.CANCELLED)


def test_the_hubs_api_makes_a_reservation(person: Make) -> None:
    ada = person("way-api")
    answer = ada.start("run", OPTIONS)
    assert answer.status_code in (httpx.codes.CREATED, httpx.codes.ACCEPTED), answer.text
    made = ada.of_server("run")
    assert made is not None
    assert (made.gpu_type, made.gpus, made.hours) == ("t4", 1, 1.0)
    ada.until_state(made.id, State.ACTIVE)


def test_what_is_active_can_be_reached_at_once(person: Make) -> None:
    ada = person("way-reach")
    made = ada.reserve(**OPTIONS)
    ada.until_state(made.id, State.ACTIVE)
    assert ada.inside(made, "status").is_success


def test_the_hubs_api_without_options_is_refused(person: Make) -> None:
    ada = person("way-bare")
    for server in ("", "run"):
        answer = ada.start(server)
        assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
        assert "GPU type" in answer.json()["message"]
    _has_nothing(ada)


@pytest.mark.parametrize("server", ["", "/run"])
def test_a_link_starts_nothing(person: Make, server: str) -> None:
    ada = person(f"way-link{'-named' if server else ''}")
    page = ada.browser.open(f"/hub/spawn/{ada.name}{server}?gpu_type=t4&hours=4&name=From+a+link")
    form = page.form("/hub/spawn")
    assert (form.fields["gpu_type"], form.fields["hours"]) == ("t4", "4")
    assert form.fields["name"] == "From a link"
    _has_nothing(ada)


def test_a_name_that_reads_like_anothers_server_is_refused(person: Make) -> None:
    alice, other = person("alice"), person("alice-prod")
    answer = alice.start("prod", OPTIONS)
    assert answer.status_code == httpx.codes.CONFLICT, answer.text
    assert other.name not in answer.json()["message"]
    _has_nothing(alice)
    made = other.start("", OPTIONS)
    assert made.is_success, made.text


@pytest.mark.parametrize(("field", "value"), [("hours", 1000), ("gpus", 7), ("disk", "nowhere")])
def test_form_and_api_refuse_alike(person: Make, field: str, value: int | str) -> None:
    ada = person(f"way-wrong-{field}")
    answer = ada.start("run", {**OPTIONS, field: value})
    assert httpx.codes.is_client_error(answer.status_code), answer.text
    typed = {
        "hours": {"hours": "other", "hours_other": str(value)},
        "gpus": {"gpus:t4": str(value)},
        "disk": {"disk_choice": "existing", "disk": str(value)},
    }
    page = ada.fill_form("/hub/spawn", **{**FORM, **typed[field]})
    assert " ".join(answer.json()["message"].split()) in page.text
    _has_nothing(ada)


def test_a_crashed_server_keeps_its_lease_and_starts_again_on_it(
    hub: RunningHub, person: Make
) -> None:
    ada = person("way-crash")
    made = ada.reserve(**OPTIONS)
    ada.until_state(made.id, State.ACTIVE)
    kill_all("GPUDEV_RESERVATION", made.id)
    lost = until(
        lambda: found if (found := ada.look(made.id)).server_lost_at else None, "it is noticed"
    )
    assert lost.state is State.ACTIVE
    assert lost.placement == ada.look(made.id).placement
    assert lost.restart_until is not None
    assert lost.expires_at == ada.look(made.id).expires_at
    until(lambda: not (ada.server(made.server_name) or {}).get("ready"), "the Hub has noticed")

    # By the token API without options: the live reservation is attached to, none is made.
    answer = ada.start(made.server_name)
    assert answer.is_success, answer.text
    until(lambda: not ada.look(made.id).server_lost_at, "it runs again")
    until(lambda: (ada.server(made.server_name) or {}).get("ready"), "the Hub's route is there")
    assert ada.inside(made, "status").is_success
    assert [r.id for r in ada.reservations()] == [made.id]
    assert made.id in marked(hub)


def _has_nothing(person: Person) -> None:
    assert person.reservations() == []
    assert not person.has_server()

"""People at a running Hub: what they do by the REST API, by the Hub's API and in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from gpudev_client import models
from gpudev_client.states import FINAL, State
from tests.fixtures.hub import RunningHub

from .browser import Browser, Page
from .waiting import PATIENCE, until


class Person:
    """One user with a token of all their scopes. The name must be new at this Hub."""

    def __init__(self, hub: RunningHub, name: str) -> None:
        self.hub, self.name = hub, name
        self.token = hub.user(name)
        self._browser: Browser | None = None

    # --- by the REST API ----------------------------------------------------------------------

    def call(self, method: str, path: str, json: Any = None) -> httpx.Response:
        return self.hub.call(method, path, self.token, json)

    def ask(self, **values: Any) -> httpx.Response:
        """Asks for a reservation: a t4-small for 36 seconds unless `values` say otherwise."""
        return self.call("POST", "/reservations", {"gpu_type": "t4-small", "hours": 0.01, **values})

    def reserve(self, **values: Any) -> models.Reservation:
        answer = self.ask(**values)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return models.Reservation.model_validate(answer.json())

    def look(self, reservation_id: str) -> models.Reservation:
        answer = self.call("GET", f"/reservations/{reservation_id}")
        assert answer.is_success, answer.text
        return models.Reservation.model_validate(answer.json())

    def cancel(self, reservation_id: str) -> None:
        answer = self.call("DELETE", f"/reservations/{reservation_id}")
        assert answer.is_success, answer.text

    def at_least(self, reservation_id: str, seconds: float) -> None:
        """Extends a lease of which less is left, for what takes longer on a busy machine."""
        end = self.look(reservation_id).expires_at
        assert end is not None
        missing = seconds - (end - datetime.now(UTC)).total_seconds()
        if missing > 0:
            path = f"/reservations/{reservation_id}/extension"
            answer = self.call("POST", path, {"hours": missing / 3600})
            assert answer.is_success, answer.text

    def reservations(self, *states: State) -> list[models.Reservation]:
        """Theirs, newest first, of all states unless some are named; at most 200."""
        query = "".join(f"&state={state.value}" for state in states)
        answer = self.call("GET", f"/reservations?limit=200{query}")
        assert answer.is_success, answer.text
        return [models.Reservation.model_validate(item) for item in answer.json()["items"]]

    def of_server(self, server_name: str) -> models.Reservation | None:
        """The newest reservation of one of their servers."""
        found = [r for r in self.reservations() if r.server_name == server_name]
        return found[0] if found else None

    def history(self, reservation_id: str) -> list[models.HistoryEntry]:
        answer = self.call("GET", f"/reservations/{reservation_id}/history?limit=200")
        assert answer.is_success, answer.text
        return [models.HistoryEntry.model_validate(item) for item in answer.json()["items"]]

    def until_state(
        self, reservation_id: str, *states: State, patience: float = PATIENCE
    ) -> models.Reservation:
        """Waits for one of `states`; a reservation that has ended otherwise fails at once."""

        def there() -> models.Reservation | None:
            found = self.look(reservation_id)
            if found.state in states:
                return found
            assert found.state not in FINAL, f"{found.state}: {found.reason}"
            return None

        wanted = " or ".join(state.value for state in states)
        return until(
            there,
            f"{reservation_id} is {wanted}",
            patience=patience,
            seen=lambda: (self.look(reservation_id), self.history(reservation_id)),
        )

    def until_over(
        self, reservation_id: str, state: State, patience: float = PATIENCE
    ) -> models.Reservation:
        return self.until_state(reservation_id, state, patience=patience)

    # --- at the Hub ---------------------------------------------------------------------------

    def start(self, server_name: str, options: Any = None) -> httpx.Response:
        """Starts a server by the Hub's API with the person's own token."""
        return httpx.post(
            f"{self.hub.url}/hub/api/{self._path(server_name)}",
            json=options,
            headers={"Authorization": f"token {self.token}"},
            timeout=60.0,
            trust_env=False,
        )

    def stop(self, server_name: str) -> None:
        self.hub.api("DELETE", self._path(server_name), token=self.token)

    def server(self, server_name: str) -> dict[str, Any] | None:
        """The Hub's view of a server: `ready`, `pending`, `stopped` ..."""
        user = self.hub.api("GET", f"users/{quote(self.name)}?include_stopped_servers=1")
        row: dict[str, Any] | None = user["servers"].get(server_name)
        return row

    def has_server(self) -> bool:
        """Whether the Hub runs or starts any server of theirs."""
        user = self.hub.api("GET", f"users/{quote(self.name)}?include_stopped_servers=1")
        return any(row["ready"] or row["pending"] for row in user["servers"].values())

    def _path(self, server_name: str) -> str:
        owner = quote(self.name)
        return f"users/{owner}/servers/{server_name}" if server_name else f"users/{owner}/server"

    def inside(self, reservation: models.Reservation, path: str) -> httpx.Response:
        """A GET at the running server's own API."""
        name = f"{reservation.server_name}/" if reservation.server_name else ""
        return httpx.get(
            f"{self.hub.url}/user/{quote(self.name)}/{name}api/{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=60.0,
            trust_env=False,
            follow_redirects=True,
        )

    # --- in a browser -------------------------------------------------------------------------

    @property
    def browser(self) -> Browser:
        if self._browser is None:
            self._browser = Browser(self.hub.url, self.name)
        return self._browser

    def fill_form(self, path: str, **values: str) -> Page:
        """Opens the Hub's form at `path`, fills it in and sends it; the page that follows."""
        page = self.browser.open(path)
        return self.browser.send(page.form("/hub/spawn"), page, **values)

    def close(self) -> None:
        if self._browser is not None:
            self._browser.close()


P = TypeVar("P", bound=Person)


@contextmanager
def people(kind: Callable[[str], P]) -> Iterator[Callable[[str], P]]:
    """Makes people; what they still hold goes back at the end."""
    with ExitStack() as last:

        def make(name: str) -> P:
            one = kind(name)
            last.callback(one.close)
            last.callback(_give_back, one)
            return one

        yield make


def _give_back(one: Person) -> None:
    for reservation in one.reservations():
        if reservation.ended_at is None and reservation.user == one.name:
            one.cancel(reservation.id)

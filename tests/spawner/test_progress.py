"""The sentences of the waiting page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_spawner.progress import Phase, message, start_html
from gpudev_spawner.refusals import SpawnRefused

NOW = datetime(2026, 5, 12, 16, 30, tzinfo=UTC)


def reservation(**changes: Any) -> Reservation:
    fields = {
        "id": "k3abcdefghij0123",
        "name": "Run",
        "user": "ada",
        "server_name": "",
        "gpu_type": "t4",
        "gpus": 2,
        "hours": 1,
        "disk": None,
        "state": State.QUEUED,
        "submitted_at": NOW,
        "position": 3,
        "promised_start": NOW + timedelta(hours=2, minutes=9, seconds=30),
    }
    return Reservation.model_validate(fields | changes)


def test_waiting_says_place_and_promise_rounded_up() -> None:
    said = message(Phase.WAITING, reservation(), NOW)
    assert said["message"] == (
        "3rd in the queue for 2 x t4: starts at 18:40 UTC at the latest (in 2 h 10 min)."
    )


def test_the_page_can_show_the_time_in_its_viewers_zone() -> None:
    said = message(Phase.WAITING, reservation(), NOW)
    assert '<time datetime="2026-05-12T18:39:30+00:00"' in said["html_message"]
    assert ">at 18:40 UTC</time> at the latest" in said["html_message"]


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("state", list(State))
def test_nothing_that_a_person_named_becomes_markup(phase: Phase, state: State) -> None:
    odd = reservation(
        state=state, placement=[{"node": "<b>n", "units": [0], "gpu_ids": ["0"]}], gpu_type="t<4"
    )
    said = message(phase, odd, NOW)
    assert "<b>" not in said["html_message"]
    assert "t<4" not in said["html_message"]


def test_a_due_promise_and_a_missing_one_are_said_plainly() -> None:
    assert str(start_html(NOW, NOW)) == "starts any moment"
    assert str(start_html(None, NOW)) == "no start time yet"


def test_what_limit_keeps_it_waiting_is_said_after_it() -> None:
    said = message(Phase.WAITING, reservation(limited_by="You may have 2 <t4> at once."), NOW)
    assert said["message"].endswith("(in 2 h 10 min). You may have 2 <t4> at once.")
    assert said["html_message"].endswith("(in 2 h 10 min). You may have 2 &lt;t4&gt; at once.")


def test_a_booking_is_no_place_in_the_queue() -> None:
    booked = reservation(
        state=State.SCHEDULED, position=None, booked_for=NOW + timedelta(days=1),
        promised_start=NOW + timedelta(days=1),
    )  # fmt: skip
    said = message(Phase.WAITING, booked, NOW)
    assert said["message"].startswith("Booked for 2 x t4: starts tomorrow at 16:30 UTC")


def test_its_turn_names_the_node() -> None:
    placed = reservation(
        state=State.PREPARING, placement=[{"node": "t4-1", "units": [0, 1], "gpu_ids": ["0", "1"]}]
    )
    assert "2 x t4 (t4-1)" in message(Phase.STARTING, placed, NOW)["message"]


def test_a_refusal_says_its_times_in_utc_and_marks_them_for_the_page() -> None:
    refused = SpawnRefused("<Promised> from 2020-05-14T16:40Z.")
    assert refused.message == "<Promised> from Thu 14 May 2020 16:40 UTC."
    assert refused.jupyterhub_message == refused.message
    html = refused.jupyterhub_html_message
    assert html.startswith('&lt;Promised&gt; from <time datetime="2020-05-14T16:40:00+00:00"')
    assert html.endswith("Thu 14 May 2020 16:40 UTC</time>.")

"""Calls that a machine makes up from the OpenAPI document: none breaks the service.

Each route gets values that the document allows and values that it forbids, from people and from an
admin, about things that are there and things that are not. `FUZZ=200` makes up so many for each
route and kind. What it finds becomes a test of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from benchmarks.r6 import CONFIG
from gpudev_client.models import Reservation
from gpudev_service.api.routes import ROUTES
from tests.fixtures.hub import ADMIN, RunningHub

from .conformity import SPEC, complaints

pytestmark = [pytest.mark.hub, pytest.mark.slow]

EXAMPLES = int(os.environ.get("FUZZ", "4"))
#: What only comes out of the inside of a program.
INSIDE = (b"Traceback", b'File "', b"sqlalchemy", b"sqlite3", b"psycopg", b"site-packages", b"0x7f")
#: Event streams do not end.
NAMES = [route.name for route in ROUTES if not route.stream]
SCHEMA = schemathesis.openapi.from_dict(SPEC)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@dataclass
class Target:
    """A running service with things that calls can be about."""

    base: str
    tokens: dict[str, str]
    there: dict[str, list[str]]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    hub = RunningHub(service_config=CONFIG)
    try:
        hub.start()
        tokens = {"ada": hub.user("ada"), ADMIN: hub.user(ADMIN)}
        made = []
        for count in (1, 8):
            asked = {"gpu_type": "t4", "gpus": count, "hours": 24}
            answer = hub.call("POST", "/reservations", tokens["ada"], asked)
            made.append(Reservation.model_validate(answer.json()).id)
        hub.call("POST", "/disks", tokens["ada"], {"name": "work"}).raise_for_status()
        there = {"id": made, "name": ["work", "t4"], "node": ["t4-1"], "user": ["ada"]}
        yield Target(f"{hub.service}/api/v1", tokens, there)
    finally:
        hub.remove()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("name", NAMES)
def test_made_up_calls_are_answered_as_the_document_says(
    target: Target, name: str, mode: GenerationMode
) -> None:
    operation = SCHEMA.find_operation_by_id(name)

    @given(
        case=operation.as_strategy(generation_mode=mode),
        caller=st.sampled_from(sorted(target.tokens)),
        choice=st.integers(0, 7),
    )
    @settings(
        max_examples=EXAMPLES,
        derandomize=EXAMPLES < 10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def call(case: Any, caller: str, choice: int) -> None:
        if choice:  # mostly about something that is there
            for parameter in case.path_parameters or {}:
                known = target.there.get(parameter)
                if known:
                    case.path_parameters[parameter] = known[choice % len(known)]
        headers = {"Authorization": f"token {target.tokens[caller]}"}
        answer = case.call(base_url=target.base, headers=headers, timeout=30)
        wrong = [mark for mark in INSIDE if mark in answer.content]
        assert not wrong, f"{wrong} in {answer.content[:500]!r}"
        assert answer.status_code < 500, (answer.status_code, answer.content[:500])
        if _is_ours(answer):
            assert complaints(name, answer.status_code, answer.content) == []

    if operation is None:
        raise AssertionError(name)
    try:
        call()
    except Unsatisfiable:  # a call without any parameter has none that the document forbids
        assert mode is GenerationMode.NEGATIVE


def _is_ours(answer: Any) -> bool:
    """Whether the answer is of the route: what the HTTP server refuses never gets there."""
    return "application/json" in str(answer.headers.get("content-type", ""))

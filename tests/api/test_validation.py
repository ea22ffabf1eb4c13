"""What is wrong with a request is said in one sentence that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client.models import DiskRequest, ExtensionRequest, ReservationRequest
from gpudev_service.api.reservations import ListQuery
from gpudev_service.api.route import PageQuery
from gpudev_service.api.validation import idempotency_key, read_body, read_query
from gpudev_service.errors import CODES, Refusal

GOOD = {"gpu_type": "t4", "hours": 0.5}


def outcome(work: Callable[[], object]) -> Refusal | None:
    """The refusal, if there was one; anything else that is raised fails the test."""
    try:
        work()
    except Refusal as found:
        return found
    return None


def refusal(raw: Any, model: type[Any] = ReservationRequest) -> Refusal:
    text = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    with pytest.raises(Refusal) as caught:
        read_body(text, model)
    return caught.value


def test_half_an_hour_stays_half_an_hour() -> None:
    assert read_body(json.dumps(GOOD).encode(), ReservationRequest).hours == 0.5


@pytest.mark.parametrize(
    ("change", "field", "message", "accepted"),
    [
        ({"hours": "2"}, "hours", "hours must be a number.", None),
        ({"hours": 0}, "hours", "hours must be more than 0.0.", {"more_than": 0.0}),
        ({"hours": -1}, "hours", "hours must be more than 0.0.", {"more_than": 0.0}),
        ({"hours": 1e9}, "hours", "hours must be at most 8784.0.", {"max": 8784.0}),
        ({"hours": True}, "hours", "hours must be a number.", None),
        ({"gpus": 1.5}, "gpus", "gpus must be a whole number.", None),
        ({"gpus": "two"}, "gpus", "gpus must be a whole number.", None),
        ({"gpus": -1}, "gpus", "gpus must be at least 0.", {"min": 0}),
        ({"gpus": True}, "gpus", "gpus must be a whole number.", None),
        ({"create_disk": 1}, "create_disk", "create_disk must be true or false.", None),
        ({"name": "x" * 101}, "name", "name may have 100 characters at most.",
         {"max_length": 100}),
        ({"name": "a\nb"}, "name",
         "name is not accepted: use one line of printable characters.", None),
        ({"starts_at": "2030-01-31T12:00:00"}, "starts_at",
         "starts_at needs its time zone, like 2030-01-31T12:00:00Z.", None),
        ({"starts_at": "tomorrow"}, "starts_at",
         "starts_at must be a time, like 2030-01-31T12:00:00Z.", None),
        ({"disk": "../x"}, "disk", ("disk may have letters, digits, dots, underscores and hyphens, "
         "begins with a letter or digit, and has 63 characters at most."), None),
        ({"node_labels": "rack=1"}, "node_labels", "node_labels must be an object.", None),
        ({"node_labels": {"a b": "1"}}, "node_labels", ("node_labels is not accepted: 'a b' is no "
         "label, such as topology.kubernetes.io/zone."), None),
        ({"node_labels": {"rack": "-"}}, "node_labels",
         "node_labels is not accepted: a label has no such value as '-'.", None),
        ({"node_labels": {f"rack-{at}": "" for at in range(11)}}, "node_labels",
         "node_labels may have 10 entries at most.", {"max_length": 10}),
    ],
)  # fmt: skip
def test_a_wrong_field(change: dict[str, Any], field: str, message: str, accepted: Any) -> None:
    found = refusal({**GOOD, **change})
    assert (found.code, found.field, found.message, found.accepted) == (
        "invalid_input", field, message, accepted,
    )  # fmt: skip


def test_an_unknown_field_names_the_known_ones() -> None:
    found = refusal({"hour": 2}, ExtensionRequest)
    assert found.field == "hour"
    assert found.message == "There is no field hour. Known here: hours."
    assert found.accepted == ["hours"]


@pytest.mark.parametrize("name", ["priority", "state", "expires_at", "id", "owner"])
def test_what_the_service_decides_cannot_be_sent(name: str) -> None:
    assert refusal({**GOOD, name: 1}).field == name


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"hours" 1}', "The body is not JSON: Expecting ':' delimiter at line 1, column 10."),
        (b'{"hours": NaN}', "The body has NaN, which is not JSON."),
        (b'{"hours": 1, "hours": 2}', "The body names hours twice."),
        (b"[]", "The body must be a JSON object, like {}."),
        (b"2", "The body must be a JSON object, like {}."),
        (b'{"name": "\xff"}', "The body is not UTF-8 text; see byte 10."),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "The body is nested deeper than 20 levels."),
        (b"[" * 30_000, "The body is nested deeper than 20 levels."),
    ],
)  # fmt: skip
def test_what_is_not_json(raw: bytes, message: str) -> None:
    found = refusal(raw)
    assert (found.code, found.message) == ("bad_request", message)


def test_an_empty_body_is_an_empty_object() -> None:
    assert refusal(b"").message == "gpu_type is needed."


@given(st.binary(max_size=300))
def test_no_bytes_are_an_internal_error(raw: bytes) -> None:
    found = outcome(lambda: read_body(raw, DiskRequest))
    assert found is None or CODES[found.code] < 500


@given(st.dictionaries(st.text(max_size=20), st.lists(st.binary(max_size=20), min_size=1)))
def test_no_query_is_an_internal_error(arguments: dict[str, list[bytes]]) -> None:
    found = outcome(lambda: read_query(arguments, ListQuery))
    assert found is None or CODES[found.code] < 500
    assert found is None or found.field is None or found.field.isprintable()


def test_query_parameters() -> None:
    query = read_query({"state": [b"queued", b"active"], "limit": [b"2"]}, ListQuery)
    assert (query.state, query.limit) == (["queued", "active"], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": [b"1", b"2"]}, "limit stands twice."),
        ({"limit": [b"0"]}, "limit must be at least 1."),
        ({"limit": [b"201"]}, "limit must be at most 200."),
        ({"limit": [b"many"]}, "limit must be a whole number."),
        ({"page": [b"2"]}, "There is no field page. Known here: limit, cursor."),
        ({"limit": [b"\xff"]}, "The query is not UTF-8."),
    ],
)
def test_a_wrong_query(arguments: dict[str, list[bytes]], message: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_query(arguments, PageQuery)
    assert caught.value.message == message


def test_an_unknown_state_names_the_states() -> None:
    with pytest.raises(Refusal) as caught:
        read_query({"state": [b"pending"]}, ListQuery)
    assert caught.value.field == "state"
    assert "queued" in caught.value.accepted


@pytest.mark.parametrize("key", ["short", "x" * 129, "has a space", "tab\tinside1", "ümlaut-1"])
def test_a_key_has_its_form(key: str) -> None:
    with pytest.raises(Refusal, match="Idempotency-Key"):
        idempotency_key(key)

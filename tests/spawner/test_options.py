"""What forms, links and API callers ask for, and the sentences for what cannot be asked."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client.models import Availability, GpuType, ReservationRequest
from gpudev_spawner import form, options
from gpudev_spawner.options import Attach, FormValues, InvalidOptions

FILLED = {
    "gpu_type": ["t4"],
    "gpus:t4": ["2"],
    "gpus:h100": ["8"],
    "hours": ["2"],
    "disk_choice": ["existing"],
    "disk": ["work"],
    "name": ["Fine-tuning"],
}


def asked(**changes: list[str]) -> ReservationRequest | Attach:
    return options.from_form(options.form_values({**FILLED, **changes}))


def test_a_filled_form_is_the_request_that_the_api_would_take() -> None:
    assert asked() == ReservationRequest(
        gpu_type="t4", gpus=2, hours=2, disk="work", name="Fine-tuning"
    )


def test_the_count_is_that_of_the_chosen_type() -> None:
    assert asked(gpu_type=["h100"]).gpus == 8  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("typed", "hours"),
    [
        ("2", 2.0), ("0.5", 0.5), ("1,5", 1.5), (".25", 0.25), (" 3 h", 3.0), ("90 min", 1.5),
        ("6m", 0.1), ("1 hour", 1.0), ("30 Minutes", 0.5),
    ],
)  # fmt: skip
def test_lengths_are_read_as_people_type_them(typed: str, hours: float) -> None:
    got = asked(hours=["other"], hours_other=[typed])
    assert isinstance(got, ReservationRequest)
    assert got.hours == pytest.approx(hours)


@pytest.mark.parametrize("typed", ["", "soon", "0", "-1", "1e9", "nan", "inf", "1.5.2", "99999"])
def test_what_is_no_length_is_refused_at_its_field(typed: str) -> None:
    with pytest.raises(InvalidOptions) as refusal:
        asked(hours=["other"], hours_other=[typed])
    assert refusal.value.field == "hours"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gpu_type": [""]}, "gpu_type"),
        ({"gpu_type": ["../etc"]}, "gpu_type"),
        ({"gpus:t4": ["two"]}, "gpus"),
        ({"disk_choice": ["new"], "new_disk": ["my disk"]}, "disk"),
        ({"disk_choice": ["new"], "new_disk": [""]}, "disk"),
        ({"disk_choice": [""]}, "disk"),
        ({"name": ["x" * 101]}, "name"),
        ({"name": ["two\nlines"]}, "name"),
        ({"reservation": ["../admin"]}, "reservation"),
    ],
)
def test_every_fault_names_its_field_and_says_what_would_do(
    changes: dict[str, list[str]], field: str
) -> None:
    with pytest.raises(InvalidOptions) as refusal:
        asked(**changes)
    assert refusal.value.field == field
    assert refusal.value.message.endswith(".")


def test_a_disk_is_new_old_or_none() -> None:
    new = asked(disk_choice=["new"], new_disk=["fresh"])
    none = asked(disk_choice=["none"])
    assert (new.disk, new.create_disk) == ("fresh", True)  # type: ignore[union-attr]
    assert (none.disk, none.create_disk) == (None, False)  # type: ignore[union-attr]


def test_the_button_of_a_live_reservation_attaches_to_it() -> None:
    assert asked(reservation=["k3abcdefghij0123"]) == Attach("k3abcdefghij0123")


@pytest.mark.parametrize(
    ("given_options", "expected"),
    [
        ({}, None),
        ({"display_name": "My run"}, None),
        ({"gpu_type": "t4", "hours": 1}, ReservationRequest(gpu_type="t4", hours=1)),
        ({"gpu_type": "t4", "hours": "1", "gpus": "2"},
         ReservationRequest(gpu_type="t4", hours=1, gpus=2)),
        ({"gpu_type": "t4", "hours": 1, "disk": None}, ReservationRequest(gpu_type="t4", hours=1)),
        ({"reservation": "k3abcdefghij0123"}, Attach("k3abcdefghij0123")),
        ({"user_options": {"gpu_type": "t4", "hours": 1}},
         ReservationRequest(gpu_type="t4", hours=1)),
    ],
)  # fmt: skip
def test_options_of_the_hubs_api_mean_the_same(
    given_options: dict[str, Any], expected: options.Asked
) -> None:
    assert options.parse(given_options) == expected


@pytest.mark.parametrize(
    ("given_options", "field"),
    [
        ({"gpu_type": "t4"}, "hours"),
        ({"hours": 2}, "gpu_type"),
        ({"gpu_type": "t4", "hours": 1, "user": "grace"}, None),
        ({"gpu_type": "t4", "hours": 1, "server_name": "x"}, None),
        ({"gpu_type": ["t4"], "hours": 1}, "gpu_type"),
        ({"gpu_type": "t4", "hours": 1, "starts_at": "tomorrow"}, "starts_at"),
        ({"gpu_type": "t4", "hours": 1, "node_labels": "rack=1"}, "node_labels"),
        ({"gpu_type": "t4", "hours": 1, "node_labels": {"a b": "1"}}, "node_labels"),
        ({"reservation": {"id": 1}}, "reservation"),
    ],
)
def test_options_of_the_hubs_api_are_no_way_around_the_form(
    given_options: dict[str, Any], field: str | None
) -> None:
    with pytest.raises(InvalidOptions) as refusal:
        options.parse(given_options)
    assert refusal.value.field == field


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=50),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
            max_leaves=5,
        ),
        max_size=6,
    )
)
def test_whatever_is_sent_becomes_a_request_or_a_refusal(sent: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidOptions):
        got = options.parse(sent)
        assert got is None or isinstance(got, ReservationRequest | Attach)


@given(
    st.builds(
        ReservationRequest,
        gpu_type=st.sampled_from(["t4", "h100"]),
        gpus=st.none() | st.integers(0, 64),
        hours=st.floats(0.001, 1000),
        disk=st.none() | st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
        name=st.none() | st.text("abc <>&\"'", min_size=1, max_size=20),
        node_labels=st.none() | st.just({"topology.kubernetes.io/zone": "eu-1a", "rack": ""}),
    )
)
def test_what_the_hub_keeps_starts_the_same_again(request: ReservationRequest) -> None:
    kept = json.loads(json.dumps(options.stored(request)))
    assert options.parse(kept) == request


def test_a_link_fills_the_form_as_far_as_it_says_something() -> None:
    filled = options.prefill({"gpu_type": ["t4"], "gpus": ["2"], "hours": ["2"]}, (1, 2, 4))
    assert filled == FormValues(gpu_type="t4", gpus="2", hours="2")
    odd = options.prefill({"opt-gpu_type": ["t4"], "hours": ["1.5"], "disk": ["work"]}, (1, 2, 4))
    assert odd == FormValues(
        gpu_type="t4", hours="other", hours_other="1.5", disk_choice="existing", disk="work"
    )


def test_a_request_in_the_form_reads_back_as_itself() -> None:
    request = ReservationRequest(gpu_type="t4", gpus=2, hours=1.5, disk="work", name="Run")
    shown = options.values_of(request, (1, 2, 4))
    assert options.from_form(shown) == request


@pytest.mark.parametrize("typed", ["=7", "rack=7, , x=1", "a rack=7"])
def test_labels_that_are_none_are_a_fault_of_their_field(typed: str) -> None:
    fields = {"gpu_type": ["t4"], "hours": ["2"], "disk_choice": ["none"], "node_labels": [typed]}
    with pytest.raises(options.InvalidOptions) as refused:
        options.from_form(options.form_values(fields))
    assert list(refused.value.faults) == ["node_labels"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "3 of 8 free now, 2 waiting"),
        (
            {"added_within_minutes": 5},
            "3 of 8 free now, 2 waiting; more nodes within 5 min when needed",
        ),
        ({"maintenance": "new cooling", "added_within_minutes": 5}, "In maintenance: new cooling"),
    ],
)
def test_the_form_says_what_there_is_of_a_type(facts: dict[str, Any], expected: str) -> None:
    kind = {
        "name": "t4", "label": "T4", "gpus_per_node": 8, "counts": [1], "cpus": 8, "memory_gb": 64,
        "min_hours": 0.1, "max_hours": 24, "default_hours": 1,
    } | facts  # fmt: skip
    there = {"gpu_type": "t4", "total": 8, "free": 3, "queue_length": 2, "hours": 1, "earliest": []}
    offered = form.type_choice(
        GpuType.model_validate(kind),
        Availability.model_validate(there),
        FormValues(),
        datetime(2026, 5, 1, 12, tzinfo=UTC),
    )
    assert offered.free == expected

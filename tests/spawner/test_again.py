"""Going on where one left: what is offered, and that the button does it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from gpudev_client.models import (
    Availability,
    Disk,
    GpuType,
    Reservation,
    ReservationRequest,
)
from gpudev_client.states import State
from gpudev_spawner import again, form, options
from tests.fixtures.world import START

from .conftest import Meet
from .person import said


def kind(name: str, *counts: int, **changes: Any) -> GpuType:
    values = {
        "name": name,
        "label": name.upper(),
        "gpus_per_node": max(counts),
        "counts": list(counts),
        "cpus": 8,
        "memory_gb": 32,
        "min_hours": 0.1,
        "max_hours": 24,
        "default_hours": 2,
    }
    return GpuType.model_validate(values | changes)


def free(name: str, **starts: datetime | None) -> Availability:
    earliest = [
        {"gpus": int(count.removeprefix("at")), "starts_at": at} for count, at in starts.items()
    ]
    return Availability.model_validate(
        {"gpu_type": name, "total": 8, "free": 1, "queue_length": 0, "hours": 2,
         "earliest": earliest}
    )  # fmt: skip


def past(disk: str | None = "thesis", **changes: Any) -> Reservation:
    values = {
        "id": "a000000000000001",
        "name": "Fine-tuning",
        "user": "ada",
        "server_name": "a000000000000001",
        "gpu_type": "t4",
        "gpus": 2,
        "hours": 3.0,
        "disk": disk,
        "state": State.EXPIRED,
        "submitted_at": START - timedelta(hours=5),
        "active_at": START - timedelta(hours=4),
    }
    return Reservation.model_validate(values | changes)


def disk(name: str = "thesis", **changes: Any) -> Disk:
    return Disk.model_validate({"name": name, "user": "ada", "created_at": START} | changes)


TYPES = [kind("t4", 1, 2, 4), kind("h100", 1, 2, 8), kind("cpu", 0)]
LATER = START + timedelta(hours=6)


def offered(
    reservations: list[Reservation] | None = None,
    disks: list[Disk] | None = None,
    types: list[GpuType] = TYPES,
    **availability: Availability,
) -> again.Again | None:
    reservations = [past()] if reservations is None else reservations
    disks = [disk()] if disks is None else disks
    return again.offered(reservations, disks, types, availability, START)


def test_the_same_again_where_it_starts_now() -> None:
    found = offered(t4=free("t4", at2=START), h100=free("h100", at2=START))
    assert found is not None
    assert (found.disk, found.name) == ("thesis", "Fine-tuning")
    (offer,) = found.offers
    assert (offer.what, offer.start, offer.now) == ("2 x T4 for 3 h", "starts now", True)


def test_what_is_free_sooner_beside_the_same_that_is_not() -> None:
    found = offered(t4=free("t4", at2=LATER), h100=free("h100", at1=START, at2=START, at8=START))
    assert found is not None
    assert [offer.what for offer in found.offers] == ["2 x T4 for 3 h", "2 x H100 for 3 h"]
    assert [offer.now for offer in found.offers] == [False, True]
    assert "18:00 UTC" in found.offers[0].start


def test_no_more_gpus_than_last_time_and_none_where_there_were_some() -> None:
    cpu = free("cpu", at0=START)
    found = offered(t4=free("t4", at2=LATER), h100=free("h100", at8=START), cpu=cpu)
    assert found is not None
    assert [offer.what for offer in found.offers] == ["2 x T4 for 3 h"]
    without = offered([past(gpu_type="cpu", gpus=0)], cpu=cpu)
    assert without is not None
    assert [offer.what for offer in without.offers] == ["CPU, no GPU for 3 h"]


@pytest.mark.parametrize(
    ("reservations", "disks"),
    [
        ([], [disk()]),
        ([past(None)], [disk()]),
        ([past("gone")], [disk()]),
        ([past()], [disk(in_use_by="b000000000000001")]),
        ([past()], [disk(busy="restoring")]),
        ([past(active_at=None)], [disk()]),
    ],
    ids=["nothing past", "no disk", "disk gone", "in use", "busy", "never ran"],
)
def test_nothing_to_go_on_with(reservations: list[Reservation], disks: list[Disk]) -> None:
    assert offered(reservations, disks, t4=free("t4", at2=START)) is None


def test_the_newest_work_whose_disk_is_free() -> None:
    work = [past("busy"), past("thesis", gpus=1), past("thesis", gpus=4)]
    found = offered(work, [disk("busy", in_use_by="x"), disk()], t4=free("t4", at1=START))
    assert found is not None
    assert [offer.what for offer in found.offers] == ["1 x T4 for 3 h"]


def test_a_type_that_is_gone_closed_or_shorter_now() -> None:
    sooner = free("h100", at2=START)
    closed = [kind("t4", 1, 2, maintenance="new driver"), TYPES[1]]
    for types in ([TYPES[1]], closed):
        found = offered(types=types, t4=free("t4", at2=START), h100=sooner)
        assert found is not None
        assert [offer.what for offer in found.offers] == ["2 x H100 for 3 h"]
    shorter = offered(types=[kind("t4", 2, max_hours=1)], t4=free("t4", at2=START))
    assert shorter is not None
    assert shorter.offers[0].what == "2 x T4 for 1 h"


@pytest.mark.parametrize("hours", [3.0, 0.5, 1.25, 0.1])
def test_the_button_asks_for_exactly_what_it_says(hours: float) -> None:
    name = "A & B=C; <b>%20"
    found = offered([past(hours=hours, name=name)], t4=free("t4", at2=START))
    assert found is not None
    pressed = {"again": [found.offers[0].query], "gpu_type": ["h100"], "hours": ["24"]}
    values = options.submitted(pressed, form.PRESETS)
    assert options.from_form(values) == ReservationRequest(
        gpu_type="t4", gpus=2, hours=hours, disk="thesis", name=name
    )


def test_the_same_labels_are_asked_for_and_no_start_is_said_that_others_have() -> None:
    labels = {"topology.kubernetes.io/zone": "eu-1a", "rack": "7"}
    t4, h100 = free("t4", at2=LATER), free("h100", at2=START)
    found = offered([past(node_labels=labels)], t4=t4, h100=h100)
    assert found is not None
    [offer] = found.offers
    assert offer.what == "2 x T4 for 3 h on nodes with rack=7, topology.kubernetes.io/zone=eu-1a"
    assert (str(offer.start), offer.now) == ("starts once such nodes are free", False)
    asked = options.from_form(options.submitted({"again": [offer.query]}, form.PRESETS))
    assert isinstance(asked, ReservationRequest)
    assert asked.node_labels == labels
    # The form shows them, and gives them back.
    shown = options.values_of(asked, form.PRESETS)
    assert options.request_from_form(shown) == asked


def test_without_the_button_the_fields_count() -> None:
    fields = {"gpu_type": ["h100"], "hours": ["24"], "disk_choice": ["none"]}
    assert options.submitted(fields, form.PRESETS) == options.form_values(fields)


def test_nonsense_from_the_button_is_refused_like_any_other() -> None:
    values = options.submitted({"again": ["gpu_type=../x&hours=now"]}, form.PRESETS)
    with pytest.raises(options.InvalidOptions) as refusal:
        options.from_form(values)
    assert set(refusal.value.faults) >= {"gpu_type", "hours"}
    assert parse_qs("") == {}


@pytest.mark.hub
def test_one_press_goes_on_with_disk_and_gpus_of_the_last_time(meet: Meet) -> None:
    ada = meet("again-ada")
    first = ada.form("first")
    assert "again" not in first.buttons
    sent = ada.send(first, gpu_type="t4", **{"gpus:t4": "2"}, hours="other", hours_other="1.5",
                    disk_choice="new", new_disk="thesis", name="Fine-tuning")  # fmt: skip
    assert sent.is_success, said(sent.text)
    (begun,) = ada.reservations("queued", "preparing", "active")
    ada.until(begun["id"], "active")
    ada.give_everything_back()
    form_again = ada.form("second")
    sent = ada.send(form_again, again=form_again.buttons["again"], gpu_type="h100", hours="24")
    assert sent.is_success, said(sent.text)
    (going_on,) = ada.reservations("queued", "preparing", "active")
    same = ("gpu_type", "gpus", "hours", "disk", "name")
    assert {key: going_on[key] for key in same} == {key: begun[key] for key in same}
    assert going_on["id"] != begun["id"]

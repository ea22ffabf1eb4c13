"""Quotas and horizons; what would be accepted stands in each refusal."""

from datetime import timedelta
from typing import Any

import pytest

from gpudev_client.models import ReservationRequest
from gpudev_service.errors import Refusal
from gpudev_service.operations import admission
from gpudev_service.operations.admission import BOOKING_HORIZON, Standing, admit
from gpudev_service.settings import GpuTypeSpec, Policy, PolicyRule
from tests.fixtures.world import START, TYPES

POLICY = Policy(default=PolicyRule(max_hours=24, max_reservations=2, max_gpus=4))


def ask(
    standing: Standing = Standing(),  # noqa: B008 - frozen
    types: dict[str, GpuTypeSpec] | None = None,
    **values: Any,
) -> Any:
    return admit(
        ReservationRequest.model_validate({"gpu_type": "t4", "hours": 1, **values}),
        types=types or TYPES,
        maintenance={},
        policy=POLICY,
        limits=POLICY.of(()),
        standing=standing,
        now=START,
    )


@pytest.mark.parametrize(
    ("standing", "values", "code", "accepted"),
    [
        (Standing(reservations=2), {}, "quota", {"reservations": 2}),
        # A limit that was lowered, or a request of an administrator.
        (Standing(reservations=3), {}, "quota", {"reservations": 2}),
        (Standing(gpus=3), {"gpus": 2}, "quota", {"max": 1}),
        (Standing(gpus=9), {}, "quota", {"max": 0}),
        (
            Standing(),
            {"starts_at": START + BOOKING_HORIZON + timedelta(seconds=1)},
            "policy_limit",
            {"max": (START + BOOKING_HORIZON).isoformat()},
        ),
        (Standing(), {"hours": 24.5}, "policy_limit", {"min": 5 / 60, "max": 24}),
    ],
)
def test_limits(standing: Standing, values: dict[str, Any], code: str, accepted: object) -> None:
    with pytest.raises(Refusal) as refused:
        ask(standing, **values)
    assert (refused.value.code, refused.value.accepted) == (code, accepted)


def test_at_the_limit_is_within_it() -> None:
    assert Standing() == Standing(reservations=0, gpus=0)
    assert timedelta(days=90) == BOOKING_HORIZON, "as the guide says"
    assert ask(hours=5 / 60).duration == timedelta(minutes=5)
    got = ask(Standing(reservations=1, gpus=3), hours=24, starts_at=START + BOOKING_HORIZON)
    assert (got.gpus, got.nodes, got.units_per_node) == (1, 1, 1)
    assert got.booked_for == START + BOOKING_HORIZON


IMAGES = ["registry.example.org/lab/*", "quay.io/jupyter/*:2026-*"]


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ("registry.example.org/lab/torch:2.9", True),
        ("registry.example.org/lab/deep/er@sha256:" + "0" * 64, True),
        ("quay.io/jupyter/scipy:2026-01", True),
        ("quay.io/jupyter/scipy:latest", False),
        ("evil.example.org/registry.example.org/lab/torch", False),
        ("REGISTRY.example.org/lab/torch", False),
        ("torch", False),
    ],
)
def test_an_image_must_match_a_pattern_with_its_full_reference(image: str, fits: bool) -> None:
    if fits:
        admission.image(image, IMAGES)
        return
    with pytest.raises(Refusal) as refused:
        admission.image(image, IMAGES)
    assert (refused.value.field, refused.value.accepted) == ("image", IMAGES)


def test_images_of_all_groups_count_and_without_patterns_there_are_none() -> None:
    policy = Policy(
        default=PolicyRule(images=("a/*",)),
        groups={"x": PolicyRule(images=("b/*", "a/*")), "y": PolicyRule()},
    )
    assert policy.of(("x", "y")).images == ["a/*", "b/*"]
    assert policy.of(()).images == ["a/*"]
    with pytest.raises(Refusal) as refused:
        ask(image="a/b")
    assert (refused.value.field, refused.value.accepted) == ("image", [])


def test_a_start_of_just_now_is_no_booking_and_one_of_yesterday_is_refused() -> None:
    assert ask(starts_at=START).booked_for is None
    assert ask(starts_at=START - timedelta(seconds=1)).booked_for is None
    assert ask(starts_at=START - timedelta(minutes=1)).booked_for is None
    soon = START + timedelta(milliseconds=1)
    assert ask(starts_at=soon).booked_for == soon
    for passed in (timedelta(minutes=1, milliseconds=1), timedelta(days=1)):
        with pytest.raises(Refusal, match="has passed") as refused:
            ask(starts_at=START - passed)
        assert refused.value.accepted == {
            "min": START.isoformat(),
            "max": (START + BOOKING_HORIZON).isoformat(),
        }


def test_a_type_in_maintenance_by_configuration_names_the_others() -> None:
    types = TYPES | {"t4": TYPES["t4"].model_copy(update={"maintenance": "moving"})}
    with pytest.raises(Refusal, match="moving") as refused:
        ask(types=types)
    assert refused.value.accepted == ["h100", "t4-small", "cpu-x86"]


def test_who_names_no_number_of_gpus_gets_the_fewest() -> None:
    assert ask().gpus == 1
    assert ask(gpu_type="cpu-x86").gpus == 0
    whole = ask(gpu_type="t4", gpus=4)
    assert (whole.nodes, whole.units_per_node) == (1, 4)
    with pytest.raises(Refusal, match=r"5 GPUs of t4 cannot be asked for. Possible: 1, 2, 3, 4, 8"):
        ask(gpus=5)
    with pytest.raises(Refusal, match="cpu-x86 has no GPUs: ask for 0"):
        ask(gpu_type="cpu-x86", gpus=1)


def test_the_limit_of_a_type_counts_before_the_one_of_the_group() -> None:
    assert ask(gpu_type="cpu-x86", hours=720).duration == timedelta(hours=720)
    short = TYPES | {"t4": TYPES["t4"].model_copy(update={"max_hours": 2})}
    with pytest.raises(Refusal) as refused:
        ask(types=short, hours=2.1)
    assert refused.value.accepted == {"min": 5 / 60, "max": 2}


def test_what_may_run_at_once_is_the_most_that_can_be_asked_for() -> None:
    """A type of its own has each of these; what is above it could never start."""
    policy = Policy(default=PolicyRule(max_hours=24, max_running_gpus=4))

    def asked(gpus: int) -> int:
        request = ReservationRequest(gpu_type="t4", gpus=gpus, hours=1)
        return admit(
            request,
            types=TYPES,
            maintenance={},
            policy=policy,
            limits=policy.of(()),
            standing=Standing(gpus=4),
            now=START,
        ).gpus

    assert asked(4) == 4
    with pytest.raises(Refusal) as refused:
        asked(8)
    assert (refused.value.code, refused.value.accepted) == ("quota", {"max": 4})

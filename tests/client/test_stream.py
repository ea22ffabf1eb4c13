"""Server-sent events: reading them however they are cut, and following through interruptions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import errors
from gpudev_client._steps import Reply
from gpudev_client._stream import MESSAGE_MAX, STREAM_RETRY, Message, Parser, follow
from gpudev_client.states import State

from .models import event, refused, sse, stream
from .playing import CUT, Played, Told

TEXT = (
    ": a comment\n"
    "retry: 10\n"
    "id: 7\nevent: news\ndata: first\ndata:second\n\n"
    "data\n\n"
    "unknown: x\r\ndata: ünï\r\n\r\n"
    "id: 8\n\n"
    "data: last one has no end\n"
).encode()
MESSAGES = [
    Message("first\nsecond", "7", "news"),
    Message("", "7", "message"),
    Message("ünï", "7", "message"),
]


@given(st.lists(st.integers(min_value=0, max_value=len(TEXT)), max_size=20))
def test_messages_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = Parser()
    borders = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[a:b] for a, b in itertools.pairwise(borders)]
    assert [m for piece in pieces for m in parser.feed(piece)] == MESSAGES


@given(st.binary())
def test_no_bytes_make_the_parser_fail(data: bytes) -> None:
    list(Parser().feed(data))


@pytest.mark.parametrize(
    "endless", [b"x" * (MESSAGE_MAX + 1), (b"data: " + b"x" * 1000 + b"\n") * 1100]
)
def test_a_message_without_an_end_is_refused(endless: bytes) -> None:
    with pytest.raises(errors.ServerFault):
        list(Parser().feed(endless))


class Clock:
    """Each look is `step` seconds later."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_events_are_followed_across_a_cut() -> None:
    first, second, third = event(5), event(6), event(9, State.CANCELLED)
    played = Played(
        follow("/events", until_final=True),
        [stream(), sse(first), sse(second), CUT, stream(), sse(second, third)],
    )
    assert [e.id for e in played.emitted] == [5, 6, 6, 9]
    assert [c.headers.get("Last-Event-ID") for c in played.calls] == [None, "6"]
    assert played.error is None


def test_a_known_event_is_told_to_the_service() -> None:
    played = Played(follow("/events", after=41), [refused(401, "not_authenticated")])
    assert played.calls[0].headers["Last-Event-ID"] == "41"
    assert isinstance(played.error, errors.NotAuthenticated)


def test_the_end_of_a_reservation_ends_its_stream() -> None:
    played = Played(
        follow("/x", until_final=True), [stream(), sse(event(3, State.EXPIRED), event(4))]
    )
    assert [e.id for e in played.emitted] == [3]


def test_nothing_more_to_come_ends_the_stream() -> None:
    played = Played(follow("/x", after=9, until_final=True), [Reply(204)])
    assert played.error is None
    assert played.emitted == []


@pytest.mark.parametrize("failure", [CUT, refused(503, "unavailable"), Reply(502)])
def test_reconnections_are_bounded(failure: Reply | Exception) -> None:
    played = Played(follow("/events"), [failure] * STREAM_RETRY.attempts)
    assert isinstance(played.error, errors.Unreachable)
    assert len(played.pauses) == STREAM_RETRY.attempts - 1
    assert max(played.pauses) <= STREAM_RETRY.longest * 1.25


def test_a_stream_that_only_repeats_itself_is_given_up() -> None:
    # The same present state, then an end, again and again: no progress, however often it connects.
    told: Told = []
    for _ in range(STREAM_RETRY.attempts + 1):
        told += [stream(), sse(event(5)), b""]
    played = Played(follow("/events", clock=Clock(0.001)), told)
    assert isinstance(played.error, errors.Unreachable)


def test_progress_starts_the_count_anew() -> None:
    told: Told = []
    for number in range(1, 4 * STREAM_RETRY.attempts):
        told += [stream(), sse(event(number)), CUT]
    told += [stream(), sse(event(1000, State.FAILED))]
    played = Played(follow("/events", until_final=True, clock=Clock(0.001)), told)
    assert played.error is None
    assert played.emitted[-1].id == 1000


def test_a_long_quiet_connection_counts_as_a_good_one() -> None:
    told: Told = []
    for _ in range(3 * STREAM_RETRY.attempts):
        told += [stream(), b": still there\n\n", CUT]
    told += [stream(), sse(event(1, State.FAILED))]
    assert Played(follow("/events", until_final=True, clock=Clock(30)), told).error is None


def test_something_else_than_a_stream_is_a_fault() -> None:
    played = Played(follow("/events"), [Reply(200, {"content-type": "text/html"})])
    assert isinstance(played.error, errors.ServerFault)


def test_an_event_that_is_not_ours_is_a_fault() -> None:
    played = Played(follow("/events"), [stream(), b"data: {}\n\n"])
    assert isinstance(played.error, errors.ServerFault)

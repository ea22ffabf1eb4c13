"""What people read: a table of cases for each function, and what rounding must never do."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import words

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 5, 12, 14, 30, tzinfo=UTC)  # a Tuesday; 16:30 in Berlin


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (119, "1 min"),
        (1800, "30 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (7800, "2 h 10 min"),
        (24 * 3600, "24 h"),
        (26 * 3600 + 59, "26 h"),
        (48 * 3600 - 1, "47 h 59 min"),
        (48 * 3600, "2 days"),
        (52 * 3600 + 3599, "2 days 4 h"),
        (720 * 3600, "30 days"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.5, "30 min"), (1 / 12, "5 min"), (1.1, "1 h 6 min"), (24, "24 h")]
)
def test_hours_keep_their_fraction(value: float, said: str) -> None:
    assert words.hours(value) == said


@pytest.mark.parametrize(
    ("at", "zone", "said", "with_at"),
    [
        (NOW, UTC, "14:30", "at 14:30"),
        (NOW, BERLIN, "16:30", "at 16:30"),
        (NOW + timedelta(hours=9), UTC, "23:30", "at 23:30"),
        (NOW + timedelta(hours=9), BERLIN, "tomorrow 01:30", "tomorrow at 01:30"),
        (NOW - timedelta(hours=15), UTC, "yesterday 23:30", "yesterday at 23:30"),
        (NOW + timedelta(days=2), UTC, "Thu 14 May 14:30", "on Thu 14 May at 14:30"),
        (NOW + timedelta(days=365), UTC, "Wed 12 May 2027 14:30", "on Wed 12 May 2027 at 14:30"),
    ],
)
def test_moment(at: datetime, zone: ZoneInfo, said: str, with_at: str) -> None:
    assert words.moment(at, NOW, zone) == said
    assert words.at_moment(at, NOW, zone) == with_at


def test_moment_names_the_zone_when_asked() -> None:
    assert words.moment(NOW, NOW, UTC, show_zone=True) == "14:30 UTC"
    assert words.moment(NOW, NOW, BERLIN, show_zone=True) == "16:30 CEST"


def test_moment_tells_apart_the_hour_that_comes_twice() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    second = first + timedelta(hours=1)
    said = [words.moment(at, first, BERLIN) for at in (first, second)]
    assert said == ["02:30 CEST", "02:30 CET"]
    assert words.time_left(second, first, BERLIN).startswith("1 h left")


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        (NOW + timedelta(hours=2, minutes=10), "2 h 10 min left, until 16:40"),
        (NOW + timedelta(hours=2, minutes=10, seconds=59), "2 h 10 min left, until 16:40"),
        (NOW + timedelta(seconds=30), "30 s left, until 14:30"),
        (NOW + timedelta(hours=24), "24 h left, until tomorrow 14:30"),
        (NOW, "ended at 14:30"),
        (NOW - timedelta(days=1), "ended yesterday at 14:30"),
    ],
)
def test_time_left(expires: datetime, said: str) -> None:
    assert words.time_left(expires, NOW, UTC) == said


@pytest.mark.parametrize(
    ("promised", "said"),
    [
        (None, "no start time yet"),
        (NOW - timedelta(seconds=1), "starts any moment"),
        (NOW, "starts any moment"),
        (NOW + timedelta(seconds=20), "starts at 14:31 at the latest (in 1 min)"),
        (NOW + timedelta(hours=2, minutes=10), "starts at 16:40 at the latest (in 2 h 10 min)"),
        (
            NOW + timedelta(hours=2, minutes=10, seconds=1),
            "starts at 16:41 at the latest (in 2 h 11 min)",
        ),
        (NOW + timedelta(days=1), "starts tomorrow at 14:30 at the latest (in 24 h)"),
        (NOW + timedelta(days=2), "starts on Thu 14 May at 14:30 at the latest (in 2 days)"),
    ],
)
def test_start_in_words(promised: datetime | None, said: str) -> None:
    assert words.start_in_words(promised, NOW, UTC) == said


@given(st.floats(min_value=0.001, max_value=80_000))
def test_a_shown_start_is_never_before_the_promise(seconds: float) -> None:
    promised = NOW + timedelta(seconds=seconds)
    said = words.start_in_words(promised, NOW, UTC)
    day = NOW.date() + timedelta(days=1 if "tomorrow" in said else 0)
    hour, minute = said.split(" at ")[1].split()[0].split(":")
    shown = datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=UTC)
    assert timedelta(0) <= shown - promised < timedelta(minutes=1)


def test_latest_is_rounded_up_and_moment_down() -> None:
    at = NOW + timedelta(seconds=1)
    assert (words.moment(at, NOW, UTC), words.latest(at, NOW, UTC)) == ("14:30", "14:31")
    assert words.latest(NOW, NOW, UTC) == "14:30"


def test_ago() -> None:
    assert words.ago(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert words.ago(NOW + timedelta(seconds=5), NOW) == "just now"


@pytest.mark.parametrize(
    ("count", "label", "nodes", "said"),
    [
        (1, "t4", 1, "1 x t4"),
        (8, "NVIDIA H100", 1, "8 x NVIDIA H100"),
        (16, "h100", 2, "16 x h100 on 2 nodes"),
        (0, "cpu-x86", 1, "cpu-x86, no GPU"),
    ],
)
def test_gpus(count: int, label: str, nodes: int, said: str) -> None:
    assert words.gpus(count, label, nodes) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "no entries"), (1, "1 entry"), (2, "2 entries"), (21, "21 entries")]
)
def test_counted(number: int, said: str) -> None:
    assert words.counted(number, "entry", "entries") == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "not measured yet"),
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (312_400, "312 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (9_960_000, "10 MB"),
        (1_000_000_000, "1 GB"),
        (107_400_000_000, "107 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_size(count: int | None, said: str) -> None:
    assert words.size(count) == said


@pytest.mark.parametrize(
    ("position", "said"),
    [
        (None, "not in the queue"),
        (0, "not in the queue"),
        (1, "next in the queue"),
        (2, "2nd in the queue"),
        (3, "3rd in the queue"),
        (4, "4th in the queue"),
        (11, "11th in the queue"),
        (12, "12th in the queue"),
        (21, "21st in the queue"),
        (113, "113th in the queue"),
        (1002, "1002nd in the queue"),
    ],
)
def test_queue_place(position: int | None, said: str) -> None:
    assert words.queue_place(position) == said


def test_naive_times_are_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        words.moment(NOW.replace(tzinfo=None), NOW, UTC)


def test_moments_in_a_sentence_are_shown_in_the_viewers_zone() -> None:
    """A sentence is written before anybody knows who reads it, and where."""
    at = datetime(2026, 5, 14, 16, 39, 1, tzinfo=UTC)
    now = datetime(2026, 5, 14, 12, tzinfo=UTC)
    sentence = f"Promised from {words.mark(at)}, or {words.mark(at + timedelta(days=1))}."
    # A promise is an upper bound: rounded up. As it stands it is exact for programs.
    assert sentence == "Promised from 2026-05-14T16:40Z, or 2026-05-15T16:40Z."
    berlin = ZoneInfo("Europe/Berlin")
    assert words.told(sentence, now, berlin) == "Promised from 18:40, or tomorrow 18:40."
    shown = words.told(sentence, now, UTC, show_zone=True)
    assert shown == "Promised from 16:40 UTC, or tomorrow 16:40 UTC."
    minute = datetime(2026, 5, 14, 16, 40, tzinfo=UTC)
    assert words.pieces(sentence) == [
        "Promised from ", minute, ", or ", minute + timedelta(days=1), ".",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "no time", "2026-99-99T16:40Z", "run-2026-05-14T16:40Z", "2026-05-14T16:40", "<b>&</b>"],
)
def test_what_only_looks_like_a_moment_stays_as_it_is(text: str) -> None:
    assert words.told(text, datetime(2026, 5, 14, 12, tzinfo=UTC), UTC) == text

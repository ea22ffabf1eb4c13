"""How answers look: nothing is lost, nothing is too wide, nothing steers the terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client.cli import show
from gpudev_client.states import State
from tests.client.models import reservation

TITLES = ("ID", "NAME", "SIZE")
ROWS = [("abcd", "first", "1 GB"), ("efgh", "the second one", "312 MB")]


def test_a_table_that_fits_has_columns() -> None:
    assert show.table(TITLES, ROWS, 60) == (
        "ID    NAME            SIZE\nabcd  first           1 GB\nefgh  the second one  312 MB"
    )


def test_a_table_that_does_not_fit_becomes_records() -> None:
    assert show.table(TITLES, ROWS, 20) == (
        "abcd\n  name  first\n  size  1 GB\nefgh\n  name  the second\n        one\n  size  312 MB"
    )


def test_a_column_without_content_is_left_out() -> None:
    assert show.table(TITLES, [("a", "", "1"), ("b", "", "2")], None) == "ID  SIZE\na   1\nb   2"


def test_wide_characters_take_two_columns() -> None:
    assert show.table(("A", "B"), [("日本", "x"), ("abcd", "y")], 10) == "A     B\n日本  x\nabcd  y"


texts = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=60)


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5), st.integers(20, 100))
def test_nothing_is_lost_and_nothing_is_too_wide(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    wanted = show.table(TITLES, rows, None).split("\n")
    assert len(wanted) == len(rows) + 1
    shown = show.table(TITLES, rows, width)
    assert all(show.cells(line) <= width for line in shown.split("\n"))
    left = "".join(shown.split())
    for row in rows:
        for value in row:
            for character in "".join(value.split()):
                assert character in left


@given(st.text(), st.integers(10, 80), st.integers(0, 9))
def test_wrapping_keeps_every_word(text: str, width: int, first: int) -> None:
    shown = show.wrapped(text, width, first)
    assert "".join(shown.split()) == "".join(text.split())


def test_an_address_stays_whole() -> None:
    address = "https://hub.example.org/user/ada/abcd0123456789ef/lab/tree/notebooks"
    shown = show.details([("address", address), ("name", "x")], 40)
    assert address in shown


@given(st.text())
def test_nothing_unprintable_reaches_the_terminal(text: str) -> None:
    assert show.clean(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\nlines"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff", "\\udcff"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert show.table(("NAME",), [(text,)], None) == f"NAME\n{shown}"
    assert show.details([("name", text)], None) == f"name  {shown}"


def test_json_has_times_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    submitted = datetime(2026, 5, 12, 20, 0, tzinfo=east)
    show.emit_json({"one": reservation(State.QUEUED, submitted_at=submitted, name="ü\x1b")})
    read = json.loads(capsys.readouterr().out)
    assert read["one"]["submitted_at"] == "2026-05-12T14:30:00Z"
    assert read["one"]["state"] == "queued"
    assert read["one"]["name"] == "ü\x1b"
    assert datetime.fromisoformat(read["one"]["submitted_at"]) == submitted.astimezone(UTC)

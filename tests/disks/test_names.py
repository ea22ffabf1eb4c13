"""How names of any bytes and paths of any text are written and read."""

import json
import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpudev_service.disks import names
from gpudev_service.disks.base import InvalidPath, PathError

file_names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(file_names)
@example(b"\\xff")
@example(b"\xff")
@example(b"\xed\xb3\xbf")
@example(b"\\\xc3")
def test_every_name_has_one_form_that_leads_back(name: bytes) -> None:
    text = names.shown(os.fsdecode(name))
    assert json.loads(json.dumps(text).encode().decode()) == text
    text.encode("utf-8")
    assert os.fsencode(names.stored(text)) == name
    assert names.parts(text) == [os.fsdecode(name)]


@given(st.text(st.characters(), max_size=20))
@example("\\xc3\\xa9")
@example("\\x41")
@example("\ud800")
def test_no_text_but_the_listed_form_is_a_name(text: str) -> None:
    try:
        name = names.stored(text)
    except InvalidPath:
        return
    assert names.shown(name) == text


@given(st.lists(st.sampled_from(["..", ".", "", "/", "a", "\\", "\\\\", "\\x2e", "\0", "\udcff"])))
def test_the_parts_of_a_path_never_lead_up(pieces: list[str]) -> None:
    try:
        way = names.parts("/".join(pieces))
    except PathError:
        return
    for part in way:
        assert re.fullmatch(r"[^/\0]+", part)
        assert part not in ("", ".", "..")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"notes.txt", "notes.txt"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\\b", "a\\\\b"),
        (b"\\xff", "\\\\xff"),
        (b"two\nlines", "two\nlines"),
    ],
)
def test_how_names_look(name: bytes, text: str) -> None:
    assert names.shown(os.fsdecode(name)) == text

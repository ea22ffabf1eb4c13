"""The pages that are made from the code are what the code has now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiers import ROOT
from tools.reference import markdown, schemas
from tools.reference.__main__ import main
from tools.reference.pages import rendered


@pytest.mark.parametrize("page", rendered(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_is_current(page: Path) -> None:
    assert page.read_text() == rendered()[page], "`make docs` writes it anew"


def test_the_check_agrees_and_refuses_other_words() -> None:
    assert main(["--check"]) == 0
    assert main(["--chekc"]) == 2


def test_a_table_survives_what_would_break_its_cells() -> None:
    made = markdown.table(("option",), [("`NAME|none`\nor more",)])
    assert made.splitlines()[-1] == r"| `NAME\|none` or more |"


def test_help_keeps_its_paragraphs_and_its_examples() -> None:
    text = "One\n        line.\n\n            c.X.y = 1\n\n        Another."
    assert markdown.paragraphs(text) == "One line.\n\n```python\nc.X.y = 1\n```\n\nAnother."


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/components/schemas/Page_Disk_"}, "page of [Disk](#disk)"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"type": "array", "items": {"type": "integer"}}, "list of integer"),
        ({"type": "string", "format": "date-time"}, "time"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
    ],
)
def test_a_schema_in_words(schema: schemas.Schema, words: str) -> None:
    assert schemas.type_of(schema) == words


def test_limits_in_words() -> None:
    assert schemas.bounds({"anyOf": [{"minimum": 1, "maximum": 9.5}]}) == "at least 1, at most 9.5"

"""Questions on a terminal. They go to standard error, so that standard output stays the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from .show import note

T = TypeVar("T")


def choose(question: str, choices: Sequence[tuple[str, str]], default: str | None = None) -> str:
    """One of `choices` (value, explanation), by its number or its value."""
    space = max(len(value) for value, _ in choices)
    for number, (value, explained) in enumerate(choices, 1):
        note(f"  {number:>2}. {value:<{space}}  {explained}".rstrip())
    values = [value for value, _ in choices]

    def read(text: str) -> str:
        chosen = numbered(text, values)
        if chosen is None:
            raise click.UsageError(f"Answer 1 to {len(values)}, or one of: {', '.join(values)}.")
        return chosen

    return ask(question, read, default)


def numbered(text: str, values: Sequence[str]) -> str | None:
    """The value that an answer means: a value itself, else its place counted from 1."""
    text = text.strip()
    if text in values:
        return text
    if text.isascii() and text.isdigit() and 1 <= int(text) <= len(values):
        return values[int(text) - 1]
    return None


def ask(question: str, read: Callable[[str], T], default: str | None = None) -> T:
    """Asks until `read` takes the answer; its UsageError says what would be accepted."""
    answer: T = click.prompt(question, default=default, value_proc=read, err=True)
    return answer

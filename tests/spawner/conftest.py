"""People at a Hub, who clean up behind themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from tests.fixtures.hub import RunningHub

from .person import Person


class Meet(Protocol):
    """Makes a person who is logged in: at the shared Hub, or at one of a test's own."""

    def __call__(self, name: str, hub: RunningHub | None = None) -> Person: ...


@pytest.fixture
def meet(request: pytest.FixtureRequest) -> Iterator[Meet]:
    with ExitStack() as stack:

        def meet(name: str, hub: RunningHub | None = None) -> Person:
            person = Person(hub or request.getfixturevalue("running_hub"), name)
            stack.callback(person.close)
            stack.callback(person.give_everything_back)
            return person

        yield meet

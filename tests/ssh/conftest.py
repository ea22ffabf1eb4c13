"""The site that the tests of one process share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .site import Person, Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    site = Site()
    try:
        site.start()
        yield site
    finally:
        site.remove()


@pytest.fixture
def ada(site: Site) -> Person:
    """The owner, who alone may come in."""
    ada = site.person("ada")
    site.admit(ada, refusal=None, refusals_left=0)
    return ada


@pytest.fixture
def fresh_site() -> Iterator[Callable[[], Site]]:
    """Makes sites of the test's own, for tests that end or kill parts."""
    made: list[Site] = []

    def make() -> Site:
        made.append(Site())
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.remove()

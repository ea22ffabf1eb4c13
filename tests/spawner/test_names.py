"""Server names and client ids that nobody can mistake for another server's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterhub import orm

from gpudev_spawner import names
from gpudev_spawner.refusals import SpawnRefused

NAME = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)


@given(st.tuples(NAME, st.just("") | NAME), st.tuples(NAME, st.just("") | NAME))
def test_no_two_servers_share_a_client_id(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (names.client_id(*one) == names.client_id(*other)) == (one == other)


def test_a_client_id_may_name_a_cookie() -> None:
    odd = names.client_id("é l;i=n\n", 'a",b\\')
    assert odd.isascii()
    assert not set(odd) & set('()<>@,;:\\"/[]?={} \t\n')


@pytest.fixture
def db() -> Iterator[Any]:
    """A Hub's database with the user alice, her server prod, and the user alice-prod-x."""
    session = orm.new_session_factory("sqlite://")()
    alice = orm.User(name="alice")
    session.add_all([alice, orm.User(name="alice-prod-x"), orm.User(name="bob-lab")])
    session.add(orm.Spawner(user=alice, name="prod"))
    session.add(orm.Spawner(user=alice, name="k3abcdefghij0123"))
    session.commit()
    yield session
    engine = session.get_bind()
    session.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("user", "server", "collides"),
    [
        ("alice", "", False),
        ("alice", "prod", False),
        ("alice-prod", "", False),  # its own default server is never taken away from anybody
        ("alice", "prod-x", True),  # the user alice-prod-x
        ("alice-prod", "x", True),
        ("bob", "lab", True),
        ("bob", "labs", False),
        ("alice", "k3abcdefghij0123", False),
        ("al", "ice", False),  # joined with "-" it is another text
    ],
)
def test_names_that_read_like_another_server_are_refused(
    db: Any, user: str, server: str, collides: bool
) -> None:
    assert names.collides(db, user, server) is collides


def test_two_named_servers_of_two_users_do_not_join_to_one_text(db: Any) -> None:
    ann = orm.User(name="ann-b")
    db.add_all([ann, orm.Spawner(user=ann, name="c")])
    db.commit()
    assert names.collides(db, "ann", "b-c")


def test_the_refusal_says_nothing_about_the_other_one(db: Any) -> None:
    with pytest.raises(SpawnRefused) as refusal:
        names.check(db, "bob", "lab")
    assert "bob-lab" not in refusal.value.message
    assert refusal.value.status_code == 409

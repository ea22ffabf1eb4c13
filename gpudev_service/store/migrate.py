"""Brings the tables to the shape that this gpudev works with.

A migration is one write transaction: replicas that start together take turns, the second finds
nothing left to do, and one that fails half-way leaves the database as it was.
"""

from __future__ import annotations

from collections.abc import Callable

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from .engine import Store
from .errors import DatabaseNewer, StoreMisconfigured

_LOCATION = "gpudev_service.store:migrations"


def head() -> str:
    """The revision of the tables that this gpudev works with."""
    revision = _scripts().get_current_head()
    if revision is None:
        raise RuntimeError("this gpudev was installed without its migrations")
    return revision


async def current(store: Store) -> str | None:
    """The revision that the database is at; None if it was never migrated.

    Raises:
        StoreUnavailable: the database cannot be reached.
    """
    async with store.reading() as session:
        connection = await session.connection()
        return await connection.run_sync(_revision_of)


async def upgrade(store: Store, revision: str = "head") -> str:
    """Migrates up to `revision` and returns the revision that the database is at now.

    Raises:
        DatabaseNewer: a newer gpudev has migrated it; nothing was changed.
        StoreMisconfigured: there is no such revision.
        StoreUnavailable: the database cannot be reached, or somebody else keeps it locked.
    """
    _refuse_unknown(revision)
    return await _migrate(store, lambda config: command.upgrade(config, revision)) or ""


async def downgrade(store: Store, revision: str) -> str | None:
    """Migrates down to `revision` (`base` for none), and with that deletes what it cannot hold.

    Raises:
        DatabaseNewer: a newer gpudev has migrated it; only that one can migrate it down.
        StoreMisconfigured: there is no such revision.
        StoreUnavailable: see `upgrade`.
    """
    _refuse_unknown(revision)
    return await _migrate(store, lambda config: command.downgrade(config, revision))


async def _migrate(store: Store, step: Callable[[Config], None]) -> str | None:
    def migrate(connection: Connection) -> str | None:
        _refuse_newer(_revision_of(connection))
        config = _config()
        config.attributes["connection"] = connection
        step(config)
        return _revision_of(connection)

    async def work(session: AsyncSession) -> str | None:
        connection = await session.connection()
        return await connection.run_sync(migrate)

    return await store.alter(work)


def _refuse_unknown(revision: str) -> None:
    try:
        _scripts().get_revision(revision)
    except (CommandError, ResolutionError) as error:
        raise StoreMisconfigured(f"There is no revision {revision!r}.") from error


def _refuse_newer(revision: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise DatabaseNewer(
            f"The database is at revision {revision}, which this gpudev does not know: a newer one "
            f"has migrated it. Install that version again, or restore a backup from before."
        )


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", _LOCATION)
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())

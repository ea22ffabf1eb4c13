"""Runs migrations on the connection, and in the transaction, that `store.migrate` hands over."""

from alembic import context

from gpudev_service.store.models import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("migrations are run by `gpudev migrate`, which gives them a connection")

context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite cannot alter most of a table; alembic then copies it. Both databases roll DDL back.
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()

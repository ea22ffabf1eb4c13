"""The database: tables, constraints, migrations, sessions; SQLite and PostgreSQL alike.

Belongs here: the SQLAlchemy models with the invariants as constraints, alembic migrations, how a
transaction is opened and retried, queries that more than one operation needs, backup.
Never here: decisions (who gets what, who may do what) and effects outside the database.
"""

"""The alembic environment and, in `versions/`, one module per change of the tables.

Belongs here: changes of tables and of the rows in them, up and down, on both databases.
Never here: the models (a migration must mean the same for ever) and anything outside the database.
"""

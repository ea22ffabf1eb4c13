"""What the store raises of its own.

`sqlalchemy.exc.IntegrityError` (a constraint refused a row) and `sqlalchemy.orm.exc.StaleDataError`
(a row was changed since it was read) are part of the store's interface too and pass unchanged.
"""


class StoreError(Exception):
    """Base of everything that the store raises of its own."""


class StoreUnavailable(StoreError):  # noqa: N818 - says what is the matter
    """The database could not be used now; trying later may help. Chained to the driver's error."""


class StoreBroken(StoreUnavailable):
    """The database cannot be used until somebody puts something right; the message says what."""


class OutcomeUnknown(StoreUnavailable):
    """The connection broke during a commit, and whether it took place could not be found out."""


class NotLeading(StoreUnavailable):
    """Another replica of the service leads, or none does just now: this one may not write."""


class StoreMisconfigured(StoreError):  # noqa: N818 - says what is the matter
    """The address of the database, or what it asks for, cannot work as it is."""


class DatabaseNewer(StoreError):  # noqa: N818 - says what is the matter
    """The database was migrated by a newer gpudev than this one."""

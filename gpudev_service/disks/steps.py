"""The moments at which a crash would matter, by name.

Work announces each of them; a test kills the process there and looks at what is left. In the
service nothing listens.
"""

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """What has just happened."""

    CREATE_STAGED = "create-staged"
    CREATE_PUBLISHED = "create-published"
    SNAPSHOT_STAGED = "snapshot-staged"
    SNAPSHOT_COPIED = "snapshot-copied"
    SNAPSHOT_DESCRIBED = "snapshot-described"
    SNAPSHOT_SYNCED = "snapshot-synced"
    SNAPSHOT_PUBLISHED = "snapshot-published"
    CLONE_STAGED = "clone-staged"
    CLONE_COPIED = "clone-copied"
    CLONE_PUBLISHED = "clone-published"
    RESTORE_STAGED = "restore-staged"
    RESTORE_COPIED = "restore-copied"
    RESTORE_INCOMING = "restore-incoming"
    RESTORE_SET_ASIDE = "restore-set-aside"
    RESTORE_PUBLISHED = "restore-published"
    DELETE_SET_ASIDE = "delete-set-aside"
    PURGE_SET_ASIDE = "purge-set-aside"
    #: One file or directory of many.
    FILE_STARTED = "file-started"
    FILE_COPIED = "file-copied"
    DIRECTORY_REMOVED = "directory-removed"


class VolumeStep(StrEnum):
    """What has just happened to a disk that is a volume."""

    CREATED = "created"
    SNAPSHOT_BEGUN = "snapshot-begun"
    SNAPSHOT_READY = "snapshot-ready"
    SOURCE_BEGUN = "source-begun"
    SOURCE_READY = "source-ready"
    CLONE_BEGUN = "clone-begun"
    CLONE_FILLED = "clone-filled"
    CLONE_PUBLISHED = "clone-published"
    RESTORE_BEGUN = "restore-begun"
    RESTORE_FILLED = "restore-filled"
    RESTORE_PUBLISHED = "restore-published"
    RESTORE_OLD_REMOVED = "restore-old-removed"
    DELETE_BEGUN = "delete-begun"
    PURGE_MARKED = "purge-marked"
    PURGE_SNAPSHOTS_GONE = "purge-snapshots-gone"
    PURGE_CLAIMS_GONE = "purge-claims-gone"
    INDEX_BEGUN = "index-begun"
    INDEX_READ = "index-read"
    INDEX_STORED = "index-stored"


OnStep = Callable[[Step], None]
OnVolumeStep = Callable[[VolumeStep], None]


def nothing_listens(step: StrEnum) -> None:
    """What the service runs with."""

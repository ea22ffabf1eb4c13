"""What all models have in common: bases, names, hours and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gpudev_client import limits

T = TypeVar("T")

TypeName = Annotated[str, StringConstraints(pattern=rf"^{limits.TYPE_NAME}$")]
DiskName = Annotated[str, StringConstraints(pattern=rf"^{limits.DISK_NAME}$")]
DisplayName = Annotated[str, StringConstraints(max_length=limits.NAME_MAX, strip_whitespace=True)]
Note = Annotated[str, StringConstraints(max_length=limits.NOTE_MAX, strip_whitespace=True)]
Hours = Annotated[float, Field(gt=0, le=limits.HOURS_MAX, allow_inf_nan=False)]


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not re.fullmatch(limits.LABEL_KEY, key):
            raise ValueError(f"{key!r:.80} is no label, such as topology.kubernetes.io/zone")
        if not re.fullmatch(limits.LABEL_VALUE, value):
            raise ValueError(f"a label has no such value as {value!r:.80}")
    return labels


Labels = Annotated[dict[str, str], AfterValidator(_labels)]
#: The limit stands before the check, or the schema would take it for one of a text.
SomeLabels = Annotated[
    dict[str, str], Field(max_length=limits.NODE_LABELS_MAX), AfterValidator(_labels)
]

# Validators are built when a model is first used, not at its import (`defer_build`): a command
# and a server's start need few of the models.


class Request(BaseModel):
    """Base of everything a caller sends: nothing unknown passes."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False, defer_build=True)


class Answer(BaseModel):
    """Base of everything the service says."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


def hours_to_duration(hours: float) -> timedelta:
    """The length of `hours` as given, to the second; at least one second."""
    return timedelta(seconds=max(1, round(hours * 3600)))


def printable(text: str) -> str:
    """`text` when it is one line of printable characters, else ValueError."""
    if not text.isprintable():
        raise ValueError("use one line of printable characters")
    return text


def as_utc(moment: datetime) -> datetime:
    """`moment` in UTC; ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a time needs its time zone")
    return moment.astimezone(UTC)


class Page(Answer, Generic[T]):
    """One page of a list. `next_cursor` is None on the last page, else the `cursor` of the next."""

    items: list[T]
    next_cursor: str | None = None

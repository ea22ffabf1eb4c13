"""What goes wrong, in one line for standard error."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - it is said to a person
    """Ends the command with a sentence."""


class Lost(Problem):
    """The other side closed the connection, or did not answer in time."""

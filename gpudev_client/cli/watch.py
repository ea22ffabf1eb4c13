"""Showing something that changes: in place on a terminal, line by line in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from gpudev_client import interrupts

from .app import may_colour


class Plain:
    """Prints what is shown whenever it differs from what was printed last."""

    def __init__(self, render: Callable[[], str], *, err: bool) -> None:
        self._render = render
        self._err = err
        self._last = ""

    def update(self) -> None:
        text = self._render()
        if text != self._last:
            # It may wait for whoever reads the pipe.
            interrupts.let_in(partial(click.echo, text, err=self._err))
            self._last = text


class InPlace:
    """Redraws one place of the terminal on every update, and each second for what time changes."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def update(self) -> None:
        self._live.refresh()


@contextmanager
def shown(render: Callable[[], str], *, err: bool = False) -> Iterator[Plain | InPlace]:
    """Shows `render()` until the block ends; `update()` after something has changed.

    Within it Ctrl-C is held back: a block lets it in where it waits.
    """
    stream = sys.stderr if err else sys.stdout
    with interrupts.held():
        if not stream.isatty() or not may_colour(stream):
            yield Plain(render, err=err)
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        live = Live(
            get_renderable=lambda: Text(render(), overflow="fold"),
            console=Console(file=stream, highlight=False, markup=False, emoji=False),
            refresh_per_second=1,
            vertical_overflow="visible",
        )
        with live:
            yield InPlace(live)

"""Progress on stderr: bars on a terminal, a line for each step elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..oci.progress import Progress, ProgressSink

MIN_COLUMNS = 40
"""Narrower terminals get lines: a bar would wrap on every redraw."""


@contextmanager
def show_progress(*, quiet: bool = False, interrupted: str = "") -> Iterator[ProgressSink]:
    """A sink for progress events, drawn in the way that stderr allows. After an interrupt it says
    ``interrupted``: what is left of the work."""
    try:
        if quiet:
            yield _discard
        elif not _can_draw():
            yield _Lines(_print_line)
        else:
            with _bars() as sink:
                yield sink
    except KeyboardInterrupt:
        if interrupted and not quiet:
            _print_line(f"Interrupted. {interrupted}")
        raise


def _can_draw() -> bool:
    """Whether bars can be redrawn in place. ``CI`` says that a log is kept, terminal or not."""
    if not sys.stderr.isatty() or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return False
    return os.get_terminal_size(sys.stderr.fileno()).columns >= MIN_COLUMNS


def _discard(_event: Progress) -> None:
    pass


def _print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Lines:
    """Each status once, in the order in which they first come."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._seen: set[str] = set()

    def __call__(self, event: Progress) -> None:
        if event.status not in self._seen:
            self._seen.add(event.status)
            self._write(event.status)


@contextmanager
def _bars() -> Iterator[ProgressSink]:
    # Imported here: rich costs a tenth of a second, which `ls` and `--help` must not pay.
    from rich import progress as rich_progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=None),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    lines = _Lines(lambda text: console.print(text, markup=False, highlight=False))
    with rich_progress.Progress(*columns, console=console, refresh_per_second=8, expand=True) as bars:

        def sink(event: Progress) -> None:
            if event.total <= 0:
                lines(event)
                return
            if event.status not in tasks:
                tasks[event.status] = bars.add_task(event.status, total=event.total)
            bars.update(tasks[event.status], completed=event.completed, total=event.total)

        yield sink

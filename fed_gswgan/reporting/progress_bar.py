"""Bars at the bottom of a terminal: one for the rounds, one for each long step under way."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fed_gswgan.progress import watched_by


@contextmanager
def bars_on(console: Console) -> Iterator[None]:
    """Show what is told in the block, with the time left; nothing where there is no terminal."""
    if not console.is_terminal:
        yield
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(TextColumn("{task.description}"), *columns, console=console)
    with progress, watched_by(Bars(progress).watch):
        yield


class Bars:
    """Keeps a bar for each step that has begun and not ended.

    Args:
        progress: draws them.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def watch(self, title: str, done: int, total: int) -> None:
        """Show that so much of a step is done, and take its bar away at its end."""
        if done >= total:
            if (ended := self._bars.pop(title, None)) is not None:
                self._progress.remove_task(ended)
        elif title in self._bars:
            self._progress.update(self._bars[title], completed=done, total=total)
        else:
            self._bars[title] = self._progress.add_task(title, total=total, completed=done)

"""Printing what a command found, and the exit status that follows from it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def show(
    found: dict[str, Any],
    as_json: bool,
    render: Callable[[dict[str, Any]], str] | None = None,
    good: bool = True,
) -> None:
    """Print a result, and exit with status 1 if it is a verdict against.

    Args:
        found: of plain JSON values.
        as_json: as it is; otherwise as text.
        render: makes the text; None: a line for each entry.
        good: the verdict.
    """
    lines = "\n".join(f"{name}: {value}" for name, value in found.items())
    text = json.dumps(found, allow_nan=False) if as_json else render(found) if render else lines
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        # Python flushes once more at its exit, which must not fail again.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    if not good:
        raise typer.Exit(1)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Show a bar with the time left, on standard error; gives what takes the share that is done."""
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)

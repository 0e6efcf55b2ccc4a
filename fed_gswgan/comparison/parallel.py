"""Runs cells in worker processes of one thread each, with a bar for the whole."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fed_gswgan.comparison.cells import Cell
from fed_gswgan.comparison.results_folder import CellsFailed
from fed_gswgan.worker_process import end_with, one_thread_each


def run_cells(
    run: Callable[[Cell, Path], str],
    cells: Sequence[Cell],
    folder: Path,
    workers: int,
    console: Console,
    on_finished: Callable[[], object],
) -> None:
    """Run all cells, so many at a time; what failed is raised after the others have ended.

    Args:
        run: a module's function, of a cell and the folder.
        cells: to be run.
        folder: of the comparison.
        workers: processes.
        console: where the bar goes.
        on_finished: called after each cell.

    Raises:
        CellsFailed: naming the cells that failed and the first error.
    """
    failed: dict[str, BaseException] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    spawn = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as bar,
        one_thread_each(),
        ProcessPoolExecutor(
            workers, mp_context=spawn, initializer=end_with, initargs=(os.getpid(),)
        ) as pool,
    ):
        task = bar.add_task("cells", total=len(cells))
        futures = {pool.submit(run, cell, folder): cell for cell in cells}
        for future in as_completed(futures):
            name = futures[future].name
            if error := future.exception():
                failed[name] = error
            else:
                on_finished()
            bar.update(task, advance=1, description=f"last: {name}")
    if failed:
        first = next(iter(failed.values()))
        raise CellsFailed(
            f"{', '.join(sorted(failed))} failed, the first with {type(first).__name__}: {first}; "
            f"{folder / 'logs'} says how far they came; run the same command again to go on"
        ) from first

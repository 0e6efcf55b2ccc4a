"""Cells of a comparison: each runs once, in a worker process, and is kept in the folder."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fed_gswgan.config import Config
from fed_gswgan.reporting.run_folder import RUN, SUMMARY, changed_setting, config_of_run, read_run
from fed_gswgan.settings import Value
from simulations.run import Simulation
from simulations.worker_process import end_with, environment

PLACES = ("output-dir", "data-dir", "resume")  # paths and mode, which may differ on resuming


class Cell(Protocol):
    """What a comparison measures in one piece."""

    @property
    def name(self) -> str:
        """Return the name of the cell's files."""

    @property
    def finished(self) -> bool:
        """Tell whether the folder holds the result under these very settings."""

    def run(self) -> None:
        """Measure, and keep the result in the folder."""


@dataclass(frozen=True, kw_only=True)
class FederatedRun:
    """A cell that is a simulation, in the folder ``runs/NAME`` of the comparison.

    Its summary has the metrics of the samples alone: a table has rows for what they are compared
    with.
    """

    name: str
    settings: Mapping[str, Value]
    comparison: Path

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.comparison / "runs" / self.name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, with all of its rounds.

        Raises:
            ValueError: the run in the folder has other settings.
        """
        self._require_same_settings()
        return self._ended and self.summary()["rounds"] == config_of_run(self.folder)["rounds"]

    def run(self) -> None:
        """Run to the end, or go on with the run in the folder.

        A run that was killed within a round has paid for that round and has no budget for its last
        one. Such a run would stand in the table for what it is not: it begins anew.

        Raises:
            RuntimeError: it was interrupted, or ended early again; and what ``Simulation`` raises.
        """
        for _ in range(2):
            if self._ended and not self.finished:
                shutil.rmtree(self.folder)
            self._go_on()
            if self.finished:
                return
        raise RuntimeError(f"{self.folder}: ended after {self.summary()['rounds']} rounds")

    @property
    def _ended(self) -> bool:
        return (self.folder / SUMMARY).exists()

    def _go_on(self) -> None:
        torch.set_num_threads(1)  # one thread a process: more of them spin against each other
        prepared = partial(Simulation.prepared, runtime="in-process", workers=1)
        if (self.folder / RUN).exists():
            simulation = prepared([], resume=str(self.folder))
        else:
            simulation = prepared(self._table, output=str(self.folder))
        if not simulation.run(Console(quiet=True)):
            raise RuntimeError(f"{self.folder}: interrupted and saved")

    def summary(self) -> dict[str, Any]:
        """Return what a finished run wrote."""
        return dict(json.loads((self.folder / SUMMARY).read_text()))

    @property
    def _table(self) -> dict[str, Value]:
        return {**self.settings, "evaluation-references": False}

    def _require_same_settings(self) -> None:
        if not (self.folder / RUN).exists():
            return
        config = Config.from_table(self._table).with_noise(read_run(self.folder).spec)
        if changed := changed_setting(config, self.folder, PLACES):
            key, asked, kept = changed
            raise ValueError(
                f"{key}={asked} must be {kept}, as in the run in {self.folder}: name another "
                "output folder"
            )


def run_cells(
    cells: Sequence[Cell], workers: int, console: Console, on_finished: Callable[[], object]
) -> None:
    """Run the cells that are not finished in worker processes; a failure stops no other cell.

    Raises:
        RuntimeError: at the end, with the names of the failed cells and the first error.
    """
    missing = [cell for cell in cells if not cell.finished]
    if not missing:
        return
    failed: dict[str, BaseException] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    spawn = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    shares = spawn.SimpleQueue()
    for share in shares_of(cores, workers):
        shares.put(share)
    with (
        Progress(*columns, *times, console=console, speed_estimate_period=24 * 3600) as bar,
        environment(OMP_NUM_THREADS="1"),
        ProcessPoolExecutor(workers, spawn, _begin, (os.getpid(), shares)) as pool,
    ):
        task = bar.add_task("cells", total=len(missing))
        futures = {pool.submit(cell.run): cell.name for cell in missing}
        for future in as_completed(futures):
            if error := future.exception():
                failed[futures[future]] = error
            else:
                on_finished()
            bar.update(task, advance=1, description=f"last: {futures[future]}")
    if failed:
        first = next(iter(failed.values()))
        raise RuntimeError(
            f"{', '.join(sorted(failed))} failed, the first with {type(first).__name__}: {first}; "
            "the folder's logs say how far they came; run the same command again to go on"
        ) from first


def shares_of(cores: Sequence[int], workers: int) -> list[tuple[int, ...]]:
    """Return the cores of each worker, as evenly as can be; one each where there are fewer."""
    return [tuple(cores[w::workers]) or (cores[w % len(cores)],) for w in range(workers)]


def _begin(parent: int, shares: "multiprocessing.SimpleQueue[tuple[int, ...]]") -> None:
    """End with the parent, and keep to cores of one's own: a fit takes all that it may use."""
    end_with(parent)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, shares.get())

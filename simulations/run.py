"""Simulation of a federation: ``python -m simulations.run``, ``fed-gswgan run`` and ``resume``."""

import errno
import logging
import os
import shlex
import signal
import sqlite3
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from fed_gswgan.config import Config
from fed_gswgan.data.check import CheckedData, check_source
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.shards import SIMULATION_FOLDER
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.reporting.logs import log_to
from fed_gswgan.reporting.progress_bar import bars_on
from fed_gswgan.reporting.run_folder import (
    CLIENTS,
    Checkpoint,
    check_run_folder,
    config_of_run,
    default_folder,
    read_run,
)
from fed_gswgan.settings import Value, read_toml
from server.app import run_server
from server.client_registry import RunStalled
from simulations.worker_process import environment

RUNTIMES = ("ray", "in-process")
WRITERS = Path(__file__).parent / "configs" / "writers.toml"  # what a run is where nothing is asked
SHARDS_A_WORKER = 2
UNFIT = (OSError, ValueError, ModuleNotFoundError)  # settings, data, folder or packages
FAILURES = (*UNFIT, Refusal, RunStalled, sqlite3.Error)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

Settings = dict[str, Value]


def main(arguments: list[str] | None = None) -> int:
    """Run ``fed-gswgan run`` by an older name, or ``resume`` where ``--resume`` is given.

    Returns:
        The exit status: 0 finished, 1 failed, 2 bad settings, 130 interrupted.
    """
    from fed_gswgan.cli import main as command

    words = sys.argv[1:] if arguments is None else arguments
    name = "resume" if "--resume" in words else "run"
    return command([name, *(word for word in words if word not in ("--config", "--resume"))])


def simulate(
    settings: list[Path] | Settings,
    overrides: list[str] | None = None,
    output: str = "",
    resume: str = "",
    runtime: str = "ray",
    workers: int = 0,
    ray_address: str = "",
) -> int:
    """Run a simulation to its end or to Ctrl-C, print what happens, and return as ``main``.

    The arguments are those of ``Simulation.prepared``.
    """
    console = Console()
    with bars_on(console):
        try:
            prepared = Simulation.prepared(
                settings, overrides or [], output, resume, runtime, workers, ray_address
            )
        except UNFIT as error:
            _say(console, f"error: {error}")
            return 2
        try:
            if prepared.run(console):
                return 0
        except FAILURES as error:
            _say(console, f"error: {_reason(error, prepared.folder)}")
            if Checkpoint(prepared.folder).exists():
                _say(console, f"what was done is saved; go on with: {prepared.resumption}")
            return 1
        _say(console, f"stopped and saved; go on with: {prepared.resumption}")
        return 130


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A run that fits its data and its folder, new or to go on with.

    Attributes:
        config: with its noise calibrated.
        folder: of the run.
        shards: of clients.
        runtime: ``ray`` or ``in-process``.
        workers: processes that serve clients; 1 in-process: none but this.
        ray_address: of a running Ray cluster; empty: start Ray here.
        resumption: command that goes on with the run.
        data: what the check of all images has seen.
    """

    config: Config
    folder: Path
    shards: int
    runtime: str
    workers: int
    ray_address: str
    resumption: str
    data: CheckedData

    @classmethod
    def prepared(
        cls,
        settings: list[Path] | Settings,
        overrides: Sequence[str] = (),
        output: str = "",
        resume: str = "",
        runtime: str = "ray",
        workers: int = 0,
        ray_address: str = "",
    ) -> "Simulation":
        """Read settings, open data and folder, check every image.

        Args:
            settings: TOML files, a later one over an earlier one, or a flat table.
            overrides: ``KEY=VALUE`` each.
            output: folder of the run; empty: ``runs/<name>``.
            resume: folder of a run to go on with; then no files and no output.
            runtime: ``ray`` or ``in-process``.
            workers: processes that serve clients; 0: one for each core; with ``ray_address`` the
                cores of the cluster, which decide the number of shards.
            ray_address: of a running Ray cluster.

        Raises:
            OSError, ValueError, ModuleNotFoundError: settings, data, folder or packages are unfit.
        """
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime={runtime!r} must be one of {', '.join(RUNTIMES)}")
        if workers < 0:
            raise ValueError(f"workers={workers} must be >= 0")
        config = Config.from_table(_table(settings, overrides, output, resume))
        source = open_source(config.shared)
        config = config.with_noise(spec_of(source))
        folder = Path(config.shared.output_dir)
        check_run_folder(config, folder)
        partitions = partitions_of(source, config.shared)
        data = check_source(source, partitions.all_writers)
        check_run_folder(config, folder, data)
        clients = len(partitions)
        resumption = [sys.executable, "-m", "fed_gswgan", "resume", str(folder)]
        resumption += ["--runtime", runtime] + (["--workers", str(workers)] if workers else [])
        resumption += ["--ray-address", ray_address] if ray_address else []
        workers = workers or available_cores()
        shards = read_run(folder).shards if resume else min(SHARDS_A_WORKER * workers, clients)
        return cls(
            config=config,
            folder=folder,
            shards=shards,
            runtime=runtime,
            workers=workers,
            ray_address=ray_address,
            resumption=shlex.join(resumption),
            data=data,
        )

    def run(self, console: Console) -> bool:
        """Run, and tell whether to the end; a first Ctrl-C saves and stops.

        Raises:
            OSError, ValueError, ModuleNotFoundError, Refusal, RunStalled: the run failed; its
                ``run.log`` says how far it came.
        """
        clients_folder = (self.folder / CLIENTS).absolute()
        passed_on = {SIMULATION_FOLDER: str(clients_folder)}
        if "FED_GSWGAN_DATA" in os.environ:
            passed_on["FED_GSWGAN_DATA"] = str(Path(os.environ["FED_GSWGAN_DATA"]).absolute())
        log_to(logging.NullHandler() if console.quiet else _log_handler(console))
        # Flower warns at length that its Python entry point may go one day; its version is pinned.
        logging.getLogger("flwr").setLevel(logging.ERROR)
        run_config = self.config.to_table()

        def serve(grid: Any) -> None:
            run_server(
                grid, self.config, clients_folder, self.shards, self.runtime, stop.is_set, console,
                self.data,
            )  # fmt: skip

        with environment(**passed_on), _stop_on_ctrl_c(console) as stop:
            if self.runtime == "ray":
                from simulations.ray_runtime import run_on_ray

                run_on_ray(serve, run_config, self.shards, self.workers, self.ray_address)
            else:
                from simulations.in_process import InProcessGrid

                processes = min(self.workers, self.shards)
                with closing(InProcessGrid(self.shards, run_config, processes)) as grid:
                    serve(grid)
        return not stop.is_set()


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _table(
    settings: list[Path] | Settings, overrides: Sequence[str], output: str, resume: str
) -> Settings:
    """Return the flat settings: of files or the resumed run, then overrides, then the folder."""
    table: Settings = {}
    if resume and (settings or output):
        raise ValueError("resume takes settings and folder from the run; drop settings and output")
    if isinstance(settings, dict):
        table |= settings
    else:
        for path in settings:
            table |= read_toml(path)
    if resume:
        table |= config_of_run(Path(resume))
    for assignment in overrides:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"--set {assignment}: must be KEY=VALUE")
        table[key.strip()] = _value(value.strip())
    if resume:
        table |= {"output-dir": resume, "resume": True}
    elif output:
        table["output-dir"] = output
    elif not table.get("output-dir"):
        table["output-dir"] = default_folder(Config.from_table(table))
    for key in ("data-dir", "writers-file"):  # a worker may have another working directory
        if table.get(key):
            table[key] = str(Path(str(table[key])).absolute())
    return table


def _value(text: str) -> Value:
    """Read a value as TOML would, and a bare word as a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


@contextmanager
def _stop_on_ctrl_c(console: Console) -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets; a second one ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        _say(console, "stopping: this round is asked again on resuming; once more to stop at once")

    main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main_thread else ()
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reason(error: Exception, folder: Path) -> str:
    """Return what an error says; of a full disk, also where room is needed."""
    full = isinstance(error, OSError) and error.errno in FULL_DISK
    if full or (isinstance(error, sqlite3.Error) and "disk is full" in str(error)):
        path = getattr(error, "filename", None) or folder
        return f"{path}: no space left on the disk; make room there"
    return str(error)


def _say(console: Console, line: str) -> None:
    """Print a line as it is: no wrapping, so that it can be pasted, and no markup."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _log_handler(console: Console) -> logging.Handler:
    """Log above the progress bar on a terminal, in plain lines elsewhere."""
    if console.is_terminal:
        return RichHandler(console=console, show_path=False, show_level=False, show_time=False)
    return logging.StreamHandler()


if __name__ == "__main__":
    sys.exit(main())

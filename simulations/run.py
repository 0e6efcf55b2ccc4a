"""Runs a federation of virtual clients: ``python -m simulations.run --config FILE``."""

import argparse
import logging
import os
import shlex
import signal
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from fed_gswgan.config import Config
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER, VirtualClients
from fed_gswgan.flat_table import Value
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.profiling import PROFILE_FOLDER
from fed_gswgan.reporting.logs import log_to
from fed_gswgan.reporting.run_folder import check_run_folder, config_of_run, default_folder
from server.app import run_server
from server.presence import RunStalled
from simulations.engine import RUNTIMES, Engine
from simulations.virtual_nodes import VirtualNodes

Settings = dict[str, Value]


def main(arguments: list[str] | None = None) -> int:
    """Run, and return the exit status: 0 finished, 1 failed, 2 bad settings, 130 interrupted."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        engine = Engine(
            runtime=options.runtime, workers=options.workers,
            clients_per_message=options.clients_per_message, ray_address=options.ray_address,
        )  # fmt: skip
        config = Config.from_run_config(_settings(options))
        check_run_folder(config, Path(config.run.output_dir))
        clients = len(partitions_of(open_source(config.data), config.data))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        _say_error(console, error)
        return 2
    try:
        return run(config, clients, engine, options.profile, console)
    except (OSError, ModuleNotFoundError, Refusal, RunStalled) as error:
        _say_error(console, error)
        return 1


def run(config: Config, clients: int, engine: Engine, profile: bool, console: Console) -> int:
    """Run one simulation of so many clients to its end or to Ctrl-C; return the exit status."""
    folder = Path(config.run.output_dir)
    if "FED_GSWGAN_DATA" in os.environ:
        os.environ["FED_GSWGAN_DATA"] = str(Path(os.environ["FED_GSWGAN_DATA"]).absolute())
    virtual_clients = VirtualClients((folder / "clients").absolute())
    os.environ[SIMULATION_FOLDER] = str(virtual_clients.folder)  # of the clients' processes, too
    if profile:
        os.environ[PROFILE_FOLDER] = str((folder / "profile").absolute())
    else:
        os.environ.pop(PROFILE_FOLDER, None)
    stop = _stop_on_ctrl_c(console)
    log_to(_log_handler(console))
    # Flower warns at length that its Python entry point may go one day; its version is pinned.
    logging.getLogger("flwr").setLevel(logging.ERROR)

    def serve(grid: Any) -> None:
        nodes = VirtualNodes(clients) if engine.nodes_are_partitions else None
        run_server(grid, config, virtual_clients, engine.runtime, stop.is_set, console, nodes)

    engine.run(serve, config.to_run_config(), clients)
    if stop.is_set():
        words = [sys.executable, "-m", "simulations.run", "--resume", str(folder)]
        words += ["--profile"] if profile else []
        command = shlex.join([*words, *engine.options()])
        _say(console, f"stopped and saved; go on with: {command}")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations.run", description=__doc__)
    parser.add_argument("--config", type=Path, help="TOML file of settings, one key a line")
    parser.add_argument("--runtime", choices=RUNTIMES, default="ray")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N",
        help="processes that serve clients; default: one for each core; "
        "1, but on Ray: none but this one",
    )  # fmt: skip
    parser.add_argument(
        "--clients-per-message", type=int, default=0, metavar="N",
        help="on Ray: so many clients share a Flower message; default: a cohort's share of a "
        "worker; 1: none do",
    )  # fmt: skip
    parser.add_argument(
        "--profile", action="store_true",
        help="find out where each round's time goes: TensorBoard and summary.json",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting"
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the run; default runs/<name>")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    parser.add_argument(
        "--ray-address",
        default=os.environ.get("RAY_ADDRESS", ""),
        help="address of a running Ray cluster; default: start Ray here",
    )
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    """Return the flat settings: of the file or the resumed run, then --set, then the folder."""
    settings: Settings = {}
    if options.resume and (options.config or options.output):
        raise ValueError("--resume takes settings and folder from the run; drop --config, --output")
    if options.config:
        settings |= tomllib.loads(options.config.read_text())
    if options.resume:
        settings |= config_of_run(Path(options.resume))
    for assignment in options.set:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set {assignment}: must be KEY=VALUE")
        settings[key.strip()] = _value(value.strip())
    if options.resume:
        settings |= {"output-dir": options.resume, "resume": True}
    elif options.output:
        settings["output-dir"] = options.output
    elif not settings.get("output-dir"):
        settings["output-dir"] = default_folder(Config.from_run_config(settings))
    for key in ("data-dir", "writers-file"):  # a worker may have another working directory
        if settings.get(key):
            settings[key] = str(Path(str(settings[key])).absolute())
    return settings


def _value(text: str) -> Value:
    """Read a value as TOML would, and a bare word as a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _stop_on_ctrl_c(console: Console) -> threading.Event:
    """Return an event that the first Ctrl-C sets; a second one ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        _say(console, "stopping: this round is asked again on resuming; once more to stop at once")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGTERM, on_signal)
    return stop


def _say(console: Console, line: str) -> None:
    """Print a line as it is: no wrapping, so that it can be pasted, and no markup."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _say_error(console: Console, error: Exception) -> None:
    _say(console, f"error: {error}")


def _log_handler(console: Console) -> logging.Handler:
    """Log above the progress bar on a terminal, in plain lines elsewhere."""
    if console.is_terminal:
        return RichHandler(console=console, show_path=False, show_level=False, show_time=False)
    return logging.StreamHandler()


if __name__ == "__main__":
    sys.exit(main())

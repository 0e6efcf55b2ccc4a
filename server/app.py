"""The ServerApp: builds a run from its settings, lets the Strategy run it, and sums up."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from fed_gswgan.config import Config
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.virtual_clients import Clients, clients_of_process
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.reporting.files import replace_json
from fed_gswgan.reporting.logs import also_log_to, log_to
from fed_gswgan.reporting.run_folder import ASKED, LOG, SUMMARY, RunFolder, open_run_folder
from fed_gswgan.reporting.summary_table import print_summary
from fed_gswgan.wire.byte_meter import ByteMeter
from fed_gswgan.wire.careful_grid import careful
from server.fedavg_gan_strategy import FedAvgGanStrategy
from server.nodes import Nodes
from server.registration import register_clients
from server.roster import Roster
from server.round_strategy import RoundStrategy
from server.run_recorder import RunRecorder
from server.sample_gradient_strategy import SampleGradientStrategy
from server.summary import summarize
from server.trainers import build_trainer

logger = logging.getLogger(__name__)

app = ServerApp()

STRATEGIES: Mapping[str, Callable[..., RoundStrategy]] = {
    "gs-wgan": SampleGradientStrategy,
    "fedavg-gan": FedAvgGanStrategy,
}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run with the settings of the app's run config."""
    log_to(logging.StreamHandler())
    config = Config.from_run_config(context.run_config)
    run_server(careful(grid), config, clients_of_process(), runtime="flwr")


def run_server(
    grid: Grid,
    config: Config,
    clients: Clients,
    runtime: str,
    interrupted: Callable[[], bool] = lambda: False,
    console: Console | None = None,
    nodes: Nodes | None = None,
) -> Path:
    """Train from round 1 or the checkpoint, evaluate, sum up; return the run's folder.

    An interrupted run is saved and can be resumed; it is not evaluated and gets no summary.

    Args:
        grid: reaches the clients.
        config: of the run.
        clients: what the server can see of them beside their replies.
        runtime: its name in the summary.
        interrupted: True once the run shall end after the replies at hand.
        console: where the progress bar goes.
        nodes: the population, where it is known without asking; None: every node is asked.
    """
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    with open_run_folder(config) as run, also_log_to(run.path / LOG):
        _run(run, grid, config, clients, runtime, interrupted, console or Console(), nodes)
    return run.path


def _run(
    run: RunFolder,
    grid: Grid,
    config: Config,
    clients: Clients,
    runtime: str,
    interrupted: Callable[[], bool],
    console: Console,
    nodes: Nodes | None,
) -> None:
    source = open_source(config.data)
    partitions = partitions_of(source, config.data)
    user_ledgers = UserLedgers(run.path / ASKED, config.budget)
    if user_ledgers.max_participations() == 0:  # later on, a ledger that is missing is exhausted
        clients.create(partitions)
    num_classes = len(source.class_names)
    trainer = build_trainer(config, num_classes)
    byte_meter = ByteMeter()
    recorder = RunRecorder(run.path, config, trainer, byte_meter, num_classes, console)
    try:
        strategy = STRATEGIES[config.algorithm.algorithm](
            config=config,
            experiment_id=run.experiment_id,
            nodes=nodes or _register(grid, config, len(partitions), byte_meter, interrupted),
            num_classes=num_classes,
            trainer=trainer,
            user_ledgers=user_ledgers,
            byte_meter=byte_meter,
            first_round=recorder.finished_round + 1,
            checkpoint_round=lambda: recorder.checkpoint_round,
            on_round=recorder.on_round,
            interrupted=interrupted,
        )
        strategy.summary()
        strategy.start(grid, num_rounds=config.run.rounds)
        if not interrupted():
            recorder.picture()
            summary = summarize(config, source, partitions, clients, strategy, recorder, runtime)
            replace_json(run.path / SUMMARY, summary)
    finally:
        recorder.close()
        for log in clients.failure_logs():
            logger.warning("a client failed, or answered with noise alone: see %s", log)
    if not interrupted():
        print_summary(summary, run.path, console)


def _register(
    grid: Grid,
    config: Config,
    clients: int,
    byte_meter: ByteMeter,
    interrupted: Callable[[], bool],
) -> Nodes:
    timeout = config.cohort.reply_timeout_seconds
    registered = register_clients(grid, byte_meter, clients, timeout, interrupted)
    return Roster(registered, byte_meter)

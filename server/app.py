"""The ServerApp: builds a run from its settings, lets the Strategy run it, and sums up."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from fed_gswgan.config import Config
from fed_gswgan.data.check import CheckedData, check_source
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.shards import FailureLogs, SimulatedClients, simulation_folder
from fed_gswgan.privacy.ledger import HEAD
from fed_gswgan.reporting.html_report import write_report
from fed_gswgan.reporting.logs import also_log_to, log_to
from fed_gswgan.reporting.run_folder import (
    LOG,
    SERVER_LEDGER,
    SIDE_BY_SIDE,
    SUMMARY,
    Checkpoint,
    RunFolder,
    open_run_folder,
    replace_json,
)
from fed_gswgan.reporting.summary_table import print_summary
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.hardened_grid import hardened
from server.client_registry import ClientRegistry
from server.cohort import ServerLedger, last_round
from server.evaluation import Evaluation, or_without
from server.run_recorder import RunRecorder
from server.strategy import FederatedStrategy
from server.summary import summarize

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run with the settings of the app's run config."""
    log_to(logging.StreamHandler())
    config = Config.from_table(context.run_config)
    config = config.with_noise(spec_of(open_source(config.shared)))
    folder = simulation_folder()
    shared = config.shared
    if folder is None and shared.trust == "secure-aggregation" and not shared.masked:
        raise ValueError(
            "secure-aggregation=ideal is for simulations: the server would see each release with "
            "one client's share of noise; use secure-aggregation=protocol"
        )
    nodes = len(list(grid.get_node_ids())) if folder else 0
    run_server(hardened(grid), config, folder, nodes, runtime="flwr")


def run_server(
    grid: Grid,
    config: Config,
    clients_folder: Path | None,
    shards: int,
    runtime: str,
    interrupted: Callable[[], bool] = lambda: False,
    console: Console | None = None,
    data: CheckedData | None = None,
) -> Path:
    """Train from round 1 or the checkpoint, evaluate, sum up; return the run's folder.

    An interrupted run is saved and can be resumed; it is not evaluated and gets no summary.

    Args:
        grid: reaches the nodes.
        config: of the run, its noise known.
        clients_folder: of the shards of simulated clients; None: clients are devices.
        shards: of a new run; a resumed one keeps its own.
        runtime: its name in the summary.
        interrupted: True once the run shall end after the replies at hand.
        console: where the summary goes.
        data: of the check of all images; None: they are checked here.

    Raises:
        OSError, ValueError: data, folder or settings are unfit, before round 1.
    """
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    source = open_source(config.shared)
    spec, partitions = spec_of(source), partitions_of(source, config.shared)
    data = data or check_source(source, partitions.all_writers)
    with (
        open_run_folder(config, shards, spec, data) as run,
        also_log_to(run.path / LOG),
    ):
        for line in data.lines():
            logger.info(line)
        clients = None
        if clients_folder is not None:
            seed = config.shared.seed
            clients = SimulatedClients(clients_folder, partitions, run.shards, seed)
        _start(run, clients, config.shared.masked)
        server = config.algorithm.Server(
            config.own, spec, SeedStream(config.shared.seed), config.shared.rounds
        )
        evaluation = Evaluation(config, source, simulated=clients is not None)
        recorder = RunRecorder(run.path, config.shared, server, spec, evaluation)
        try:
            registry = ClientRegistry(grid, clients, interrupted)
            timeout = config.shared.reply_timeout_seconds
            registry.register(run.shards or config.shared.max_clients, timeout)
            recorder.byte_meter.registration_total = registry.registration_bytes
            first_round = recorder.finished_round + 1
            if config.shared.masked:  # a round is attempted once
                first_round = max(first_round, last_round(run.path / SERVER_LEDGER) + 1)
            seeded = clients is not None and config.shared.noise_source == "seeded"
            strategy = FederatedStrategy(
                config=config,
                spec=spec,
                experiment_id=run.experiment_id,
                server=server,
                registry=registry,
                ledger=ServerLedger(
                    run.path / SERVER_LEDGER, config.shared, first_round if seeded else None
                ),
                first_round=first_round,
                checkpoint_round=lambda: recorder.checkpoint_round,
                on_round=recorder.on_round,
                interrupted=interrupted,
                stopped=recorder.stopped,
                finished=recorder.finished,
                noise_alone=FailureLogs(clients).noise_alone if clients else None,
            )
            strategy.summary()
            strategy.start(grid, num_rounds=config.shared.rounds)
            if not interrupted():
                finished = strategy.finish()
                recorder.finished = True
                recorder.save()
                with or_without("last picture"):
                    recorder.picture()
                summary = summarize(strategy, recorder, source, clients, finished, runtime)
                replace_json(run.path / SUMMARY, summary)
                evaluation.save_picture(server.sampler(), run.path / SIDE_BY_SIDE)
                with or_without("report.html"):
                    write_report(run.path, summary)
        finally:
            recorder.close()
            for log in clients.failure_logs() if clients else ():
                logger.warning("a client failed, or answered with noise alone: see %s", log)
        if not interrupted():
            print_summary(summary, run.path, console or Console())
    return run.path


def _start(run: RunFolder, clients: SimulatedClients | None, masked: bool) -> None:
    """Create all ledgers at the first start; later on, one that is missing is exhausted.

    The server's ledger comes last, so that a start that was interrupted begins anew.
    """
    folder = run.path / SERVER_LEDGER
    if (folder / HEAD).exists() or Checkpoint(run.path).exists():
        return
    if clients is not None:
        clients.create(masked)
    ServerLedger.create(folder)

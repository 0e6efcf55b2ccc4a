"""The ServerApp: builds a run from its settings, lets the Strategy run it, and sums up."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from fed_gswgan.config import Config
from fed_gswgan.data.partitions import Partitions, partitions_of
from fed_gswgan.data.writer_shard import IMAGE_SHAPE
from fed_gswgan.data.writer_source import WriterSource, open_source
from fed_gswgan.device.population import Population
from fed_gswgan.device.virtual_clients import (
    ReservedBudgets,
    failed_clients,
    policy_of_run,
    reserved_budgets,
    simulation_folder,
)
from fed_gswgan.models.build import (
    build_critic,
    build_generator,
    initial_weights_from,
    parameter_count,
)
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.reporting.files import replace_json
from fed_gswgan.reporting.logs import also_log_to, log_to
from fed_gswgan.reporting.run_folder import ASKED, LOG, SUMMARY, RunFolder, open_run_folder
from fed_gswgan.reporting.summary_table import METRICS, print_summary
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.averaged_critic import AveragedCriticTrainer
from fed_gswgan.training.field_trainer import FieldTrainer
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training.gradient_field import GradientField
from fed_gswgan.training.sampling import sampler_of
from fed_gswgan.wire.byte_meter import ByteMeter
from fed_gswgan.wire.careful_grid import careful
from server.fedavg_gan_strategy import FedAvgGanStrategy
from server.nodes import Nodes
from server.registration import register_clients
from server.roster import Roster
from server.round_strategy import RoundStrategy
from server.run_recorder import RunRecorder
from server.sample_gradient_strategy import SampleGradientStrategy
from server.summary import privacy_summary, virtual_unit

logger = logging.getLogger(__name__)

app = ServerApp()

# Constant, so that every run on a data set is judged by the same classifier.
EVALUATION_SEED = 0

STRATEGIES: Mapping[str, Callable[..., RoundStrategy]] = {
    "gs-wgan": SampleGradientStrategy,
    "fedavg-gan": FedAvgGanStrategy,
}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run with the settings of the app's run config."""
    log_to(logging.StreamHandler())
    run_server(careful(grid), Config.from_run_config(context.run_config), runtime="flwr")


def run_server(
    grid: Grid,
    config: Config,
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
        runtime: its name in the summary.
        interrupted: True once the run shall end after the replies at hand.
        console: where the progress bar goes.
        nodes: the population, where it is known without asking; None: every node is asked.
    """
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    with open_run_folder(config) as run, also_log_to(run.path / LOG):
        _run(run, grid, config, runtime, interrupted, console or Console(), nodes)
    return run.path


def _run(
    run: RunFolder,
    grid: Grid,
    config: Config,
    runtime: str,
    interrupted: Callable[[], bool],
    console: Console,
    nodes: Nodes | None,
) -> None:
    source = open_source(config.data)
    partitions = partitions_of(source, config.data)
    user_ledgers = UserLedgers(run.path / ASKED, config.budget)
    virtual_clients = simulation_folder()
    if virtual_clients is not None and user_ledgers.max_participations() == 0:
        Population.create(virtual_clients, partitions)
    num_classes = len(source.class_names)
    trainer = _trainer(config, num_classes)
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
            samples_in_flight=recorder.samples_in_flight,
            on_round=recorder.on_round,
            interrupted=interrupted,
        )
        strategy.summary()
        strategy.start(grid, num_rounds=config.run.rounds)
        if not interrupted():
            recorder.picture()
            summary = summarize(config, source, partitions, strategy, recorder, runtime)
            replace_json(run.path / SUMMARY, summary)
    finally:
        recorder.close()
        for log in failed_clients(virtual_clients) if virtual_clients else []:
            logger.warning("a client failed, or answered with noise alone: see %s", log)
    if not interrupted():
        print_summary(summary, run.path, console)


def _trainer(config: Config, num_classes: int) -> GeneratorTrainer:
    seeds = SeedStream(config.run.seed)
    generator = build_generator(
        config.generator, num_classes, seeds.torch_seed("generator-weights")
    )
    if config.algorithm.algorithm == "gs-wgan":
        if config.gradient_field.release_use == "step":
            return GeneratorTrainer(generator, config.generator, config.adam)
        field = _gradient_field(config, num_classes)
        return FieldTrainer(
            generator, field, config.generator, config.adam, config.gradient_field, num_classes
        )
    critic = build_critic(config.critic, num_classes, seeds.torch_seed("critic-weights"))
    return AveragedCriticTrainer(generator, critic, config.generator, config.adam)


def _gradient_field(config: Config, num_classes: int) -> GradientField:
    with initial_weights_from(SeedStream(config.run.seed).torch_seed("field-weights")):
        return GradientField(
            num_classes,
            (config.cohort.batch_size, *IMAGE_SHAPE),
            config.sanitizer.dct_frequencies,
            config.sanitizer.clipping_bound,
            config.gradient_field.field_rounds,
            config.gradient_field.field_width,
        )


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


def summarize(
    config: Config,
    source: WriterSource,
    partitions: Partitions,
    strategy: RoundStrategy,
    recorder: RunRecorder,
    runtime: str,
) -> dict[str, Any]:
    """Evaluate on the held-out images and return what ``summary.json`` holds."""
    metrics = _evaluate(config, source, strategy)
    recorder.tensorboard.write_metrics(
        {name: value for name, value in metrics.items() if isinstance(value, float)},
        recorder.finished_round,
    )
    critic = build_critic(config.critic, len(source.class_names), seed=0)
    return {
        "algorithm": config.algorithm.algorithm,
        "runtime": runtime,
        "dataset": source.name,
        "clients": len(strategy.nodes),
        "shards": len(partitions.shards),
        "cohort_size": min(config.cohort.cohort_size, len(strategy.nodes)),
        "rounds": recorder.finished_round,
        "seconds": round(recorder.seconds, 3),
        "seed": config.run.seed,
        "classes": len(source.class_names),
        "privacy": privacy_summary(
            config,
            strategy.event,
            strategy.reply_size,
            virtual_unit(source.unit, partitions) if partitions.shared else source.unit,
            len(strategy.nodes),
            strategy.user_ledgers,
            _reserved(config, partitions),
        ),
        "bytes": recorder.byte_meter.summary(
            parameter_count(strategy.trainer.generator),
            parameter_count(critic),
            recorder.bytes_by_client(),
        ),
        "metrics": metrics,
        "replies": recorder.replies,
        "profile": recorder.profile.summary() if recorder.profile else None,
    }


def _reserved(config: Config, partitions: Partitions) -> ReservedBudgets | None:
    """Return what the clients' ledgers say, where they are simulated and all can be read."""
    folder = simulation_folder()
    if folder is None:
        return None
    try:
        return reserved_budgets(folder, partitions, policy_of_run(config))
    except LedgerUnavailable as error:
        logger.warning("epsilon is the server's upper bound, for want of a ledger: %s", error)
        return None


def _evaluate(config: Config, source: WriterSource, strategy: RoundStrategy) -> dict[str, Any]:
    """Return the metrics of the EMA generator on images that no client held; none if not asked."""
    if config.run.evaluation_samples == 0:
        return dict.fromkeys(METRICS)
    from fed_gswgan.evaluation.evaluate import evaluate

    logger.info("evaluating on held-out images")
    held_out = source.held_out()
    try:
        report = evaluate(
            sampler_of(strategy.trainer.ema_generator, config.generator),
            torch.from_numpy(held_out.images),
            torch.from_numpy(held_out.labels),
            len(source.class_names),
            config.run.evaluation_samples,
            EVALUATION_SEED,
        )
    except ValueError as error:  # a generator that diverged; the rest of the summary stands
        logger.error("no metrics: %s", error)
        return {**dict.fromkeys(METRICS), "not_evaluated": str(error)}
    return report.to_dict()

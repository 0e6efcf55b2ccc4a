"""summary.json: what a finished run was, cost and reached."""

import logging
from typing import Any

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import WriterSource, spec_of
from fed_gswgan.data.partition import Partitions
from fed_gswgan.device.virtual_clients import Clients, ReservedBudgets, policy_of_run
from fed_gswgan.models.registry import build_critic, parameter_count
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.reporting.summary_table import METRICS
from fed_gswgan.training.sampling import sampler_of
from server.privacy_summary import privacy_summary, virtual_unit
from server.round_strategy import RoundStrategy
from server.run_recorder import RunRecorder

logger = logging.getLogger(__name__)


def summarize(
    config: Config,
    source: WriterSource,
    partitions: Partitions,
    clients: Clients,
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
    critic = build_critic(config.critic, spec_of(source), seed=0)
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
            _reserved(config, partitions, clients),
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


def _reserved(config: Config, partitions: Partitions, clients: Clients) -> ReservedBudgets | None:
    """Return what the clients' ledgers say, where they can be seen and all can be read."""
    try:
        return clients.reserved(partitions, policy_of_run(config))
    except LedgerUnavailable as error:
        logger.warning("epsilon is the server's upper bound, for want of a ledger: %s", error)
        return None


def _evaluate(config: Config, source: WriterSource, strategy: RoundStrategy) -> dict[str, Any]:
    """Return the metrics of the EMA generator on images that no client held; none if not asked."""
    if config.run.evaluation_samples == 0:
        return dict.fromkeys(METRICS)
    from fed_gswgan.evaluation.report import evaluate_on_held_out

    logger.info("evaluating on held-out images")
    sampler = sampler_of(strategy.trainer.ema_generator, config.generator)
    try:
        report = evaluate_on_held_out(sampler, source, config.run.evaluation_samples)
    except ValueError as error:  # a generator that diverged; the rest of the summary stands
        logger.error("no metrics: %s", error)
        return {**dict.fromkeys(METRICS), "not_evaluated": str(error)}
    return report.to_dict()

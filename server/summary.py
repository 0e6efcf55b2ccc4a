"""summary.json: what a finished run was, what it cost whom, and what it reached."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fed_gswgan.accounting.calibrate import remedies
from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.accounting.trust import Exposure, SamplingMethod, TrustModel, privacy_spent
from fed_gswgan.algorithms.base import Metrics
from fed_gswgan.data.client_dataset import WriterSource
from fed_gswgan.device.shards import SimulatedClients, SpentBudgets
from fed_gswgan.evaluation.report import metric_notes
from fed_gswgan.models.registry import parameter_count
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.reporting.privacy_statement import PROTECTIVE_EPSILON, privacy_statement
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import finite_json
from server.run_recorder import RunRecorder
from server.strategy import FederatedStrategy

logger = logging.getLogger(__name__)


def summarize(
    strategy: FederatedStrategy,
    recorder: RunRecorder,
    source: WriterSource,
    clients: SimulatedClients | None,
    finished: Metrics,
    runtime: str,
) -> dict[str, Any]:
    """Evaluate on the held-out images and return what ``summary.json`` holds.

    A number that is not finite is None, with a line in ``notes``; whatever fails while metrics are
    measured, all else is there.

    Args:
        strategy: of the run.
        recorder: of the run.
        source: the data set.
        clients: whose ledgers can be read; None: devices.
        finished: what the algorithm's ``finish`` returned.
        runtime: its name.
    """
    shared = strategy.config.shared
    logger.info("evaluating on held-out images")
    sampler = strategy.server.sampler()
    metrics = recorder.evaluation.metrics(sampler)
    recorder.tensorboard.write_metrics(
        {name: value for name, value in metrics.items() if isinstance(value, float)},
        recorder.finished_round,
    )
    found: dict[str, Any] = {
        "algorithm": shared.algorithm,
        "runtime": runtime,
        "dataset": source.name,
        "clients": len(strategy.registry),
        "shards": len(clients.partitions.shards) if clients else len(strategy.registry),
        "cohort_size": min(shared.cohort_size, len(strategy.registry)),
        "rounds": recorder.finished_round,
        "seconds": round(recorder.seconds, 3),
        "seed": shared.seed,
        "classes": len(source.class_names),
        "prior": getattr(strategy.config.own, "prior", "none"),
        "privacy": privacy_summary(
            strategy,
            _unit(source.unit, clients),
            _spent(strategy, clients),
            read_rounds(recorder.folder) if shared.trust == "central" else (),
        ),
        "bytes": recorder.byte_meter.summary(*_network_sizes(strategy), recorder.bytes_by_client()),
        "metrics": metrics,
        "references": recorder.evaluation.reference_metrics(),
        "nearest_training_image": recorder.evaluation.nearest_training_images(sampler),
        "finish": dict(finished),
        "replies": recorder.replies,
    }
    summary, undefined = finite_json(found)
    notes = [*metric_notes(summary["metrics"]), *undefined]
    if strategy.stopped and recorder.finished_round < shared.rounds:
        ended = f"ended after {recorder.finished_round} of {shared.rounds} rounds"
        notes.insert(0, f"{ended}: {strategy.stopped}")
    for note in notes:
        logger.warning("%s", note)
    return {**summary, "notes": notes}


def privacy_summary(
    strategy: FederatedStrategy,
    unit: str,
    spent: SpentBudgets | None,
    rounds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the privacy part of ``summary.json``.

    Args:
        strategy: of the run.
        unit: what one user is.
        spent: what the clients' ledgers say; None where the server cannot see them, and then the
            server's bound stands in.
        rounds: the lines of ``rounds.jsonl``; only central trust looks at them.
    """
    shared, event, ledger = strategy.config.shared, strategy.event, strategy.ledger
    relation = NeighboringRelation(shared.neighboring_relation)
    bound = ledger.max_epsilon
    if spent:
        epsilon, mu = spent.epsilon_max, spent.mu_max
        participations, users = spent.participations_max, spent.users
    else:
        epsilon, mu = bound, ledger.max_mu
        participations, users = ledger.max_participations, len(strategy.registry)
    counted = replace(event, noise_stddev=shared.noise_stddev, trust="local", honest=1)
    remedy = remedies(counted, mu, relation, shared.delta, PROTECTIVE_EPSILON)
    coordinates = participations * event.size
    added_delta = finite_arithmetic_log10_delta(coordinates, epsilon)
    seeded = shared.noise_source == "seeded"
    amplified, why_not = None, ""
    if event.trust == "central":
        amplified, why_not = amplified_epsilon(strategy, rounds)
    secure = event.trust == "secure-aggregation"
    found = {
        "trust_model": event.trust,
        "secure_aggregation": shared.secure_aggregation if secure else None,
        "honest": event.honest if secure else None,
        "neighboring_relation": str(relation),
        "unit": unit,
        "delta": shared.delta,
        "noise_stddev": shared.noise_stddev,
        "noise_stddev_of_a_client": event.noise_stddev,
        "clipping": event.bounded,
        "clipping_bound": shared.clipping_bound,
        "rows_per_release": event.rows,
        "numbers_per_release": event.size,
        "max_epsilon": None if math.isinf(shared.max_epsilon) else shared.max_epsilon,
        "participations_max": participations,
        "mu": mu,
        "epsilon_max": epsilon,
        "epsilon_alone": gaussian_epsilon(mu * event.honest**0.5, shared.delta) if secure else None,
        "epsilon_amplified": amplified,
        "epsilon_median": spent.epsilon_median if spent else None,
        "epsilon_from": "the clients' ledgers" if spent else "the server's count",
        "epsilon_server_bound": bound,
        "delta_of_finite_arithmetic_log10": added_delta if coordinates else None,
        "seeded_noise": seeded,
    }
    cohort = min(shared.cohort_size, len(strategy.registry))
    return found | {"statement": privacy_statement(found, users, cohort, why_not, remedy)}


def amplified_epsilon(
    strategy: FederatedStrategy, rounds: Sequence[Mapping[str, Any]]
) -> tuple[float | None, str]:
    """Return epsilon while the selection of users stays secret; or None, and why there is none.

    Args:
        strategy: of a run under central trust.
        rounds: the lines of ``rounds.jsonl``.
    """
    shared, config = strategy.config.shared, strategy.config
    if config.algorithm.keeps_state(config.own):
        return None, "clients remember earlier rounds"
    if any(line["left_out"] or line["failed"] for line in rounds):
        return None, "clients were left out of the draw, or refused"
    if strategy.ledger.releases != sum(line["asked"] for line in rounds):
        return None, "a round was asked again"
    populations = {line["population"] for line in rounds}
    if len(populations) != 1:
        return None, "the population changed"
    (population,) = populations
    event = replace(strategy.event, trust="local", noise_stddev=shared.noise_stddev)
    try:
        exposure = Exposure(
            trust=TrustModel.CENTRAL,
            relation=NeighboringRelation(shared.neighboring_relation),
            rounds=len(rounds),
            sampling=SamplingMethod(shared.sampling_method),
            sampling_probability=min(1.0, shared.cohort_size / population),
        )
        return privacy_spent(event, exposure, shared.delta).epsilon, ""
    except ValueError as error:
        return None, str(error)


def _unit(unit: str, clients: SimulatedClients | None) -> str:
    """Return what a user is, also where virtual clients share the data of real ones."""
    if clients is None or not clients.partitions.shared:
        return unit
    partitions = clients.partitions
    shared = f"{len(partitions)} clients share {len(partitions.shards)} data shards"
    return f"virtual: {shared}, so this is not the epsilon of {unit}"


def _spent(strategy: FederatedStrategy, clients: SimulatedClients | None) -> SpentBudgets | None:
    """Return what the clients' ledgers say, where they can be seen and all can be read."""
    try:
        return clients.spent(strategy.config.shared) if clients else None
    except LedgerUnavailable as error:
        logger.warning("epsilon is the server's upper bound, for want of a ledger: %s", error)
        return None


def _network_sizes(strategy: FederatedStrategy) -> tuple[int, int]:
    """Return parameters of generator and critic, which averaging critics would send."""
    from fed_gswgan.algorithms import fedavg_gan
    from fed_gswgan.models.registry import CRITICS, build_critic, build_generator

    own_keys = fedavg_gan.Settings.keys()
    own = {k: v for k, v in strategy.config.to_table().items() if k in own_keys}
    if own.get("critic") not in CRITICS:
        own.pop("critic", None)
    settings = fedavg_gan.Settings.from_table(own)
    return (
        parameter_count(build_generator(settings, strategy.spec, seed=0)),
        parameter_count(build_critic(settings, strategy.spec, seed=0)),
    )

"""The privacy part of summary.json: what a run cost whom, and how that is known."""

import math
from typing import Any

from fed_gswgan.accounting.calibrate import remedies
from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.accounting.trust import TrustModel
from fed_gswgan.config import Config
from fed_gswgan.data.partition import Partitions
from fed_gswgan.device.virtual_clients import ReservedBudgets
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.reporting.privacy_statement import PROTECTIVE_EPSILON, privacy_statement


def virtual_unit(unit: str, partitions: Partitions) -> str:
    """Return who a user is where virtual clients share the data of real ones."""
    shared = f"{len(partitions)} clients share {len(partitions.shards)} shards"
    return f"virtual: {shared}, so this is not the epsilon of {unit}"


def privacy_summary(
    config: Config,
    event: SanitizedGradientEvent,
    reply_size: int,
    unit: str,
    clients: int,
    user_ledgers: UserLedgers,
    reserved: ReservedBudgets | None,
) -> dict[str, Any]:
    """Return it, under the names of ``summary.json``.

    Args:
        config: of the run.
        event: one reply.
        reply_size: numbers in a reply.
        unit: who a user is.
        clients: how many there are.
        user_ledgers: the server's own count, an upper bound.
        reserved: what the clients' ledgers say; None where the server cannot see them, and then
            the server's bound stands in.
    """
    sanitizer, budget = config.sanitizer, config.budget
    relation = NeighboringRelation(budget.neighboring_relation)
    bound = user_ledgers.max_epsilon()
    if reserved:
        epsilon, mu = reserved.epsilon_max, reserved.mu_max
        participations, users = reserved.participations_max, reserved.users
    else:
        epsilon, mu = bound, user_ledgers.max_mu()
        participations, users = user_ledgers.max_participations(), clients
    found = remedies(event, mu, relation, budget.delta, PROTECTIVE_EPSILON)
    coordinates = participations * reply_size
    added_delta = finite_arithmetic_log10_delta(coordinates, epsilon)
    seeded = sanitizer.noise_source == "seeded"
    server_trusted = event.noise_added_by == "server"
    return {
        "trust_model": str(TrustModel.CENTRAL if server_trusted else TrustModel.LOCAL),
        "neighboring_relation": str(relation),
        "unit": unit,
        "delta": budget.delta,
        "noise_stddev": sanitizer.noise_stddev,
        "clipping": sanitizer.clipping,
        "clipping_bound": sanitizer.clipping_bound,
        "samples_per_reply": event.samples,
        "max_epsilon": None if math.isinf(budget.max_epsilon) else budget.max_epsilon,
        "participations_max": participations,
        "mu": mu,
        "epsilon_max": epsilon,
        "epsilon_median": reserved.epsilon_median if reserved else None,
        "epsilon_from": "the clients' ledgers" if reserved else "the server's count",
        "epsilon_server_bound": bound,
        "delta_of_finite_arithmetic_log10": added_delta if coordinates else None,
        "seeded_noise": seeded,
        "statement": privacy_statement(
            epsilon,
            budget.delta,
            str(relation),
            unit,
            users,
            participations,
            seeded,
            server_trusted,
            added_delta,
            found,
        ),
    }

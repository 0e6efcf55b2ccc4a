"""A finished run's epsilon, step by step from its ledgers, so that a reader can recompute it."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.special import log_ndtr, ndtri

from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.accounting.trust import SamplingMethod, TrustModel, must_be_believed
from fed_gswgan.privacy.gaussian import gaussian_delta, gaussian_epsilon
from fed_gswgan.privacy.ledger import LEDGER, Ledger
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, compose
from fed_gswgan.privacy.policy import Budget


@dataclass(frozen=True)
class SpentByUser:
    """What one user's releases add up to.

    Attributes:
        user: a name from the ledger.
        ledger: where it lies.
        releases: each event and how often it happened.
        relation: what neighbouring means.
        delta: of the epsilon.
    """

    user: str
    ledger: Path
    releases: Counter[Event]
    relation: NeighboringRelation
    delta: float

    @property
    def mu(self) -> float:
        """Root of the sum of the squared mus of all releases."""
        return compose(self.releases, self.relation)

    @property
    def epsilon(self) -> float:
        """The exact Gaussian's, at ``mu`` and ``delta``."""
        return gaussian_epsilon(self.mu, self.delta)


def worst_user(clients: Path, budget: Budget) -> SpentByUser:
    """Return the user whose releases cost most, by name where several are equal.

    Args:
        clients: folder of the shards' folders, or of one device.
        budget: how the ledgers are read.

    Raises:
        FileNotFoundError: there is no ledger.
        LedgerUnavailable: one cannot be read.
    """
    relation = NeighboringRelation(budget.neighboring_relation)
    found = []
    for path in sorted([*clients.glob(LEDGER), *clients.glob(f"*/{LEDGER}")]):
        with Ledger(path.parent) as ledger:
            found += [
                SpentByUser(user, path, releases, relation, budget.delta)
                for user, releases in sorted(ledger.releases().items())
            ]
    if not found:
        raise FileNotFoundError(f"{clients}: no ledger there that holds a release")
    return max(found, key=lambda spent: spent.mu)  # the first of several


def explanation(spent: SpentByUser) -> dict[str, Any]:
    """Return every number on the way from the ledger to epsilon."""
    mu, epsilon = spent.mu, spent.epsilon
    trust = TrustModel(next(iter(spent.releases)).trust)
    server_trusted = trust is TrustModel.CENTRAL
    coordinates = sum(count * event.size for event, count in spent.releases.items())
    sampling = SamplingMethod.REVEALED if server_trusted else None
    return {
        "user": spent.user,
        "ledger": str(spent.ledger),
        "trust_model": str(trust),
        "must_be_believed": must_be_believed(trust, sampling),
        "neighboring_relation": str(spent.relation),
        "delta": spent.delta,
        "releases": [
            {
                "count": count,
                **asdict(event),
                "row_sensitivity": float(spent.relation.sensitivity_multiple),
                "release_sensitivity": event.sensitivity(spent.relation),
                "mu_of_one": event.mu(spent.relation),
                "mu_squared_of_all": count * event.mu(spent.relation) ** 2,
            }
            for event, count in spent.releases.items()
        ],
        "participations": spent.releases.total(),
        "mu": mu,
        "epsilon": epsilon,
        "check": _check(mu, epsilon, spent.delta),
        "coordinates_released": None if server_trusted else coordinates,
        "delta_of_finite_arithmetic_log10": finite_arithmetic_log10_delta(coordinates, epsilon)
        if coordinates and not server_trusted
        else None,
    }


def _check(mu: float, epsilon: float, delta: float) -> dict[str, float] | None:
    """Return both terms of delta(epsilon), as logarithms, and the estimate for a pocket."""
    if mu == 0:
        return None
    quantile = float(-ndtri(delta))
    first, second = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return {
        "first_argument": first,
        "ln_first": float(log_ndtr(first)),
        "second_argument": second,
        "ln_second": epsilon + float(log_ndtr(second)),
        "delta_at_epsilon": gaussian_delta(mu, epsilon),
        "quantile": quantile,
        "estimate": mu * mu / 2 + mu * quantile,
    }

"""A finished run's epsilon, step by step from its ledgers, so that a reader can recompute it."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.special import log_ndtr, ndtri

from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.accounting.trust import SamplingMethod, TrustModel, must_be_believed
from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.device.client_folder import LEDGER
from fed_gswgan.device.virtual_clients import policy_of_run
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent, compose
from fed_gswgan.privacy.gaussian import gaussian_delta, gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.release_basis import release_shape


@dataclass(frozen=True, kw_only=True)
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
    releases: Counter[SanitizedGradientEvent]
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


def worst_user(clients: Path, config: Config) -> SpentByUser:
    """Return the user whose releases cost most, by name where several are equal.

    Args:
        clients: folder of the virtual clients' folders.
        config: of the run.

    Raises:
        FileNotFoundError: there is no ledger.
        LedgerUnavailable: one cannot be read.
    """
    policy = policy_of_run(config)
    found = [
        SpentByUser(
            user=user,
            ledger=path,
            releases=releases,
            relation=NeighboringRelation(policy.neighboring_relation),
            delta=policy.delta,
        )
        for path in sorted(clients.glob(f"*/{LEDGER}"))
        for user, releases in Ledger(path, Ledger.users_of(path), policy).releases().items()
    ]
    if not found:
        raise FileNotFoundError(f"{clients}: no ledger there; name the clients' folder")
    return max(found, key=lambda spent: spent.mu)  # the first of several


def explanation(spent: SpentByUser, dct_frequencies: int) -> dict[str, Any]:
    """Return every number on the way from the ledger to epsilon.

    Args:
        spent: of the user to explain.
        dct_frequencies: of the run's releases, which says how many coordinates a row has.
    """
    mu, epsilon = spent.mu, spent.epsilon
    server_trusted = any(event.noise_added_by == "server" for event in spent.releases)
    trust = TrustModel.CENTRAL if server_trusted else TrustModel.LOCAL
    row = math.prod(release_shape((1, *IMAGE_SHAPE), dct_frequencies))
    coordinates = sum(count * event.samples * row for event, count in spent.releases.items())
    return {
        "user": spent.user,
        "ledger": str(spent.ledger),
        "trust_model": str(trust),
        "must_be_believed": must_be_believed(trust, SamplingMethod.REVEALED),
        "neighboring_relation": str(spent.relation),
        "delta": spent.delta,
        "releases": [
            {
                "count": count,
                **asdict(event),
                "row_sensitivity": float(spent.relation.sensitivity_multiple),
                "reply_sensitivity": event.sensitivity(spent.relation),
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

"""A finished run's epsilon, step by step from its ledgers, so that a reader can recompute it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.special import log_ndtr, ndtri

from fed_gswgan.accounting.report import (
    finite_arithmetic_log10_delta,
    no_guarantee,
    said_of_finite_arithmetic,
    sum_of_shares_log10_delta,
)
from fed_gswgan.accounting.trust import SamplingMethod, TrustModel, must_be_believed
from fed_gswgan.config import SharedSettings
from fed_gswgan.privacy.gaussian import gaussian_delta, gaussian_epsilon
from fed_gswgan.privacy.ledger import LEDGER, Ledger
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, compose, seen_alone
from fed_gswgan.privacy.policy import Budget
from fed_gswgan.reporting.run_folder import CLIENTS, read_run
from fed_gswgan.secure_aggregation.terms import threshold_of


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


def explanation_of_run(run: Path, clients: Path | None = None) -> dict[str, Any]:
    """Return every number on the way to the epsilon of a run's user who spent most.

    Args:
        run: folder of the run.
        clients: folder of its clients' folders; None: ``clients`` in the run's.

    Raises:
        FileNotFoundError: there is no such run, or no ledger.
        LedgerUnavailable: a ledger cannot be read.
    """
    shared = read_run(run).config.shared
    return {
        "run": str(run),
        "unit": "user",
        "seeded_noise": shared.noise_source == "seeded",
        "aggregation": aggregation_of(shared),
        **explanation(worst_user(clients or run / CLIENTS, shared)),
    }


def aggregation_of(shared: SharedSettings) -> dict[str, Any] | None:
    """Return who is believed, and what the sum's noise is made of; None: there is no sum."""
    if shared.trust != "secure-aggregation":
        return None
    colluding = shared.colluding if shared.masked else 0
    return {
        "form": shared.secure_aggregation,
        "cohort": shared.cohort_size,
        "honest_share": shared.honest_share,
        "honest": shared.honest,
        "colluding": colluding,
        "threshold": threshold_of(shared.cohort_size, colluding) if shared.masked else None,
        "may_drop_out": shared.cohort_size - shared.honest - colluding,
        "noise_of_a_client": shared.noise_stddev / shared.honest**0.5,
        "noise_of_the_sum": shared.noise_stddev,
    }


def explanation(spent: SpentByUser) -> dict[str, Any]:
    """Return every number on the way from the ledger to epsilon."""
    mu, epsilon = spent.mu, spent.epsilon
    trust = TrustModel(next(iter(spent.releases)).trust)
    server_trusted = trust is TrustModel.CENTRAL
    coordinates = sum(count * event.size for event, count in spent.releases.items())
    draws = sum(count * event.size * event.honest for event, count in spent.releases.items())
    sampling = SamplingMethod.REVEALED if server_trusted else None
    alone = compose(seen_alone(spent.releases), spent.relation)
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
                "bounded_parts": event.bounded_parts,
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
        "epsilon_alone": gaussian_epsilon(alone, spent.delta),
        "check": _check(mu, epsilon, spent.delta),
        "coordinates_released": None if server_trusted else coordinates,
        "noise_draws": None if server_trusted else draws,
        "delta_of_finite_arithmetic_log10": finite_arithmetic_log10_delta(draws, epsilon)
        if draws and not server_trusted
        else None,
        "delta_of_rounded_shares_log10": max(
            sum_of_shares_log10_delta(event, coordinates, epsilon) for event in spent.releases
        )
        if trust is TrustModel.SECURE_AGGREGATION and coordinates
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


def explanation_text(found: dict[str, Any]) -> str:
    """Render an ``explanation`` to which ``run`` and ``seeded_noise`` were added."""
    relation, delta = found["neighboring_relation"], found["delta"]
    lines = [
        f"epsilon = {found['epsilon']:.6g} at delta = {delta:g}: user {found['user']}, who spent "
        f"most in {found['run']}. Each step:",
        "",
        f"1. What left the device, by its ledger ({found['ledger']}):",
    ]
    for release in found["releases"]:
        whole = "each row" if release["bounded"] == "sample" else "the release as a whole"
        lines.append(
            f"   {release['count']} releases of B = {release['rows']} rows, {whole} clipped to "
            f"L2 norm <= C = {release['clipping_bound']:g}, then noise of standard deviation "
            f"{release['noise_stddev']} C on every coordinate, "
            f"added by the {'server' if release['trust'] == 'central' else 'client'}"
        )
        if release["trust"] == "secure-aggregation":
            lines.append(
                f"   The server sees sums alone, and H = {release['honest']} honest shares of the "
                "noise are in every sum"
            )
    lines += _aggregation_lines(found["aggregation"])
    moved = {
        "replace-one": "exchanged for any other data, a clipped value moves by at most 2 C",
        "zero-out": "replaced by zeros, a clipped value moves by at most C",
    }[relation]
    shared = found["trust_model"] == "secure-aggregation"
    noise = "(noise x sqrt(H))" if shared else "noise"
    lines += [
        "",
        f"2. How far the user moves a reply ({relation}: {moved}), and mu = that / {noise}:",
    ]
    for release in found["releases"]:
        root = f"sqrt({release['bounded_parts']}) x " if release["bounded"] == "sample" else ""
        noise = f"{release['noise_stddev']}"
        if release["trust"] == "secure-aggregation":
            noise = f"({noise} x sqrt({release['honest']}))"
        lines.append(
            f"   {root}{release['row_sensitivity']:g} C = {release['release_sensitivity']:.6g} C;  "
            f"mu of one reply = {release['release_sensitivity']:.6g} / {noise} = "
            f"{release['mu_of_one']:.6g}"
        )
    terms = " + ".join(f"{r['count']} x {r['mu_of_one']:.6g}^2" for r in found["releases"])
    lines += [
        "",
        "3. Fresh Gaussian noise adds up in squares, however the server chose what to ask next:",
        f"   mu = sqrt({terms or 0}) = {found['mu']:.8g}",
        "",
        *_epsilon_lines(found),
        "",
        *_remarks(found),
    ]
    return "\n".join(lines)


def _aggregation_lines(sums: Mapping[str, Any] | None) -> list[str]:
    if sums is None:
        return []
    share = f"{sums['honest_share']:g} n"
    lines = [
        f"   Cohort n = {sums['cohort']}, of whom H = {sums['honest']} ({share}) are honest and "
        f"stay; a share of {sums['noise_of_a_client']:.6g} C each, and so sqrt(H) times that, "
        f"{sums['noise_of_the_sum']:.6g} C, in the sum; {sums['may_drop_out']} may drop out"
    ]
    if sums["form"] == "protocol":
        lines.append(
            f"   Protocol: releases were masked; c = {sums['colluding']} may help the server, and "
            f"no mask comes off before t = {sums['threshold']} > (n + c) / 2 devices signed one "
            "list of survivors, H + c at least"
        )
    else:
        lines.append("   Ideal form: the simulation itself formed the sums")
    return lines


def _epsilon_lines(found: dict[str, Any]) -> list[str]:
    check = found["check"]
    if check is None:
        return ["4. Nothing was released: epsilon = 0"]
    return [
        "4. Exact epsilon of a Gaussian mechanism (Balle and Wang, arXiv 1805.06530): the one with",
        "   delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)",
        f"   at epsilon = {found['epsilon']:.8g}: Phi({check['first_argument']:.6g}) = "
        f"e^{check['ln_first']:.6g},  e^epsilon Phi({check['second_argument']:.6g}) = "
        f"e^{check['ln_second']:.6g},",
        f"   their difference = {check['delta_at_epsilon']:.6g} = delta",
        f"   By hand, a little above it: mu^2/2 + mu z = {check['estimate']:.6g}, with z = "
        f"{check['quantile']:.5g}, beyond which a normal lies with probability delta",
    ]


def _remarks(found: dict[str, Any]) -> list[str]:
    lines = []
    if found["delta_of_finite_arithmetic_log10"] is not None:
        said = said_of_finite_arithmetic(found["delta_of_finite_arithmetic_log10"], found["delta"])
        lines.append(f"5. For {found['noise_draws']:,} draws of noise {said}")
    if found["delta_of_rounded_shares_log10"] is not None:
        exponent = found["delta_of_rounded_shares_log10"]
        effect = (
            f"adds at most 10^{exponent:.0f} to delta"
            if not no_guarantee(exponent, found["delta"])
            else "adds more than delta to delta: an epsilon this large is no guarantee"
        )
        lines.append(
            f"6. Rounding each share, and not the sum, {effect}, for "
            f"{found['coordinates_released']:,} coordinates (docs/secure-aggregation.md)"
        )
    lines += ["", f"What must be believed: {found['must_be_believed']}"]
    if found["trust_model"] == "secure-aggregation":
        lines.append(f"epsilon_alone = {found['epsilon_alone']:.6g}")
    lines += [
        "The same from one command: "
        f"fed-gswgan privacy epsilon --trust {release['trust']} --clipping {release['bounded']} "
        f"--noise-stddev {release['noise_stddev']} --samples {release['rows']} "
        f"--participations {release['count']} --delta {found['delta']} "
        f"--neighboring {found['neighboring_relation']}"
        + (f" --honest {release['honest']}" if release["trust"] == "secure-aggregation" else "")
        for release in found["releases"]
        if len(found["releases"]) == 1
        and release["trust"] != "central"
        and release["bounded_parts"] in (1, release["rows"])
    ]
    if found["seeded_noise"]:
        lines.append(
            "The noise of this run came from a seed, so it protects nobody; the epsilon is that of "
            "the same run with secure noise."
        )
    return lines

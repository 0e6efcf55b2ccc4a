"""Options that say what is released about a user, how often, and who is trusted."""

import argparse
import sys
from typing import Any

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.exposure import COUNTED, Exposure
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.trust import CriticState, SamplingMethod, TrustModel
from fed_gswgan.validation import at_least


def add_release_options(parser: argparse.ArgumentParser) -> None:
    """Add them; which of them are needed depends on the trust model."""

    def words(kind: Any) -> list[str]:
        return [str(word) for word in kind]

    parser.add_argument("--trust", choices=words(TrustModel), required=True)
    parser.add_argument("--neighboring", choices=words(NeighboringRelation), required=True)
    parser.add_argument("--delta", type=float, required=True)
    parser.add_argument("--samples", type=int, required=True, help="rows of a release")
    parser.add_argument("--clipping", choices=("sample", "message"), default="sample")
    parser.add_argument(
        "--noise-stddev",
        type=float,
        help="on one coordinate of one row, in units of C; under central trust, of the sum",
    )
    counted = parser.add_argument_group("local and secure-aggregation trust")
    counted.add_argument("--participations", type=int, help="replies of the user")
    counted.add_argument("--honest", type=int, help="honest survivors in every secure sum")
    sampled = parser.add_argument_group("central and paper trust")
    sampled.add_argument("--rounds", type=int)
    sampled.add_argument("--sampling", choices=words(SamplingMethod))
    sampled.add_argument("--cohort", type=int, help="users in a round")
    sampled.add_argument("--sampling-probability", type=float, help="cohort over population")
    sampled.add_argument("--critic-state", choices=words(CriticState))
    parser.add_argument("--population", type=int, help="users; delta should be below one over it")
    parser.add_argument("--json", action="store_true")


def event_of(options: argparse.Namespace) -> SanitizedGradientEvent:
    """Return what is released at a time."""
    if options.noise_stddev is None:
        raise ValueError("noise-stddev must be given")
    return SanitizedGradientEvent(
        samples=options.samples,
        clipping=options.clipping,
        clipping_bound=1.0,
        noise_stddev=options.noise_stddev,
    )


def exposure_of(options: argparse.Namespace) -> Exposure:
    """Return how often, and who is trusted; the paper's sampling need not be said."""
    trust = TrustModel(options.trust)
    sampling = options.sampling
    if sampling is None and trust is TrustModel.PAPER:
        sampling = SamplingMethod.FIXED_SIZE
    return Exposure(
        trust=trust,
        relation=NeighboringRelation(options.neighboring),
        participations=options.participations,
        honest=options.honest,
        rounds=options.rounds,
        sampling=sampling and SamplingMethod(sampling),
        sampling_probability=_sampling_probability(options, trust),
        critic_state=options.critic_state and CriticState(options.critic_state),
    )


def warnings_of(options: argparse.Namespace) -> list[str]:
    """Return, and print as errors, what makes a result say less than it seems to."""
    found = []
    if options.population is not None and options.delta > 1 / options.population:
        found.append(
            f"delta={options.delta:g} is larger than 1/{options.population}, one over the "
            "population: an epsilon at it allows to publish a user's data outright"
        )
    for warning in found:
        print(f"fed-gswgan: warning: {warning}", file=sys.stderr)
    return found


def _sampling_probability(options: argparse.Namespace, trust: TrustModel) -> float | None:
    """Return cohort over population, or what was given instead."""
    given: float | None = options.sampling_probability
    population, cohort = options.population, options.cohort
    if population is not None:
        at_least(1, population=population)
    if cohort is None:
        if given is None and trust not in COUNTED:
            raise ValueError(
                f"sampling-probability must be given under trust={trust}, or population and cohort"
            )
        return given
    at_least(1, cohort=cohort)
    if trust in COUNTED:
        raise ValueError(f"cohort={cohort} plays no part under trust={trust}: leave it out")
    if given is not None:
        raise ValueError(
            f"cohort={cohort} says what sampling-probability={given} does: leave one out"
        )
    if population is None:
        raise ValueError(f"cohort={cohort} needs a population")
    if cohort > population:
        raise ValueError(f"cohort={cohort} must be at most population={population}")
    return float(cohort / population)

"""``fed-gswgan privacy epsilon``: what a number of equal releases about one user costs."""

import argparse
from typing import Any

from fed_gswgan.privacy.accountant import local_epsilon
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.neighboring import NeighboringRelation


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    epsilon = commands.add_parser("epsilon", help="epsilon of a number of equal replies of a user")
    epsilon.add_argument("--trust", choices=("local", "secure-aggregation"), required=True)
    epsilon.add_argument("--clipping", choices=("sample", "message"), default="sample")
    epsilon.add_argument(
        "--noise-stddev", type=float, required=True, help="on a coordinate, in units of C"
    )
    epsilon.add_argument("--samples", type=int, required=True, help="rows of a reply")
    epsilon.add_argument("--participations", type=int, required=True, help="replies of the user")
    epsilon.add_argument(
        "--honest", type=int, default=1, help="honest survivors in every secure sum"
    )
    epsilon.add_argument("--delta", type=float, required=True)
    epsilon.add_argument(
        "--neighboring", choices=[str(relation) for relation in NeighboringRelation], required=True
    )
    epsilon.add_argument("--json", action="store_true")
    epsilon.set_defaults(command=privacy_epsilon)


def privacy_epsilon(options: argparse.Namespace) -> dict[str, Any]:
    """Return epsilon, and what it was computed from."""
    if options.trust == "local" and options.honest != 1:
        raise ValueError(f"honest={options.honest} must be 1 under trust=local; it adds no noise")
    event = SanitizedGradientEvent(
        samples=options.samples,
        clipping=options.clipping,
        clipping_bound=1.0,
        noise_stddev=options.noise_stddev,
    )
    relation = NeighboringRelation(options.neighboring)
    epsilon = local_epsilon(event, options.participations, relation, options.delta, options.honest)
    mu = event.mu(relation) * (options.participations / options.honest) ** 0.5
    return {
        "epsilon": epsilon,
        "delta": options.delta,
        "mu": mu,
        "noise_multiplier": 1 / mu if mu else None,
        "trust_model": options.trust,
        "neighboring_relation": str(relation),
        "unit": "user",
        "participations": options.participations,
        "honest": options.honest,
        "method": "exact Gaussian (Balle and Wang, arXiv 1805.06530)",
    }

"""``fed-gswgan privacy epsilon``: what a number of equal releases about one user costs."""

import argparse
from typing import Any

from fed_gswgan.commands.release_options import (
    add_release_options,
    event_of,
    exposure_of,
    warnings_of,
)
from fed_gswgan.privacy.exposure import COUNTED, Exposure
from fed_gswgan.privacy.finite_arithmetic import finite_arithmetic_log10_delta
from fed_gswgan.privacy.privacy_spent import privacy_spent
from fed_gswgan.privacy.trust import TrustModel
from fed_gswgan.validation import at_least


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("epsilon", help="epsilon of equal releases about a user")
    add_release_options(parser)
    parser.add_argument(
        "--pixels", type=int, default=784, help="of an image: how many numbers a row holds"
    )
    parser.set_defaults(command=privacy_epsilon, render=_text)


def privacy_epsilon(options: argparse.Namespace) -> dict[str, Any]:
    """Return epsilon, what it was computed from, and what must be believed."""
    exposure = exposure_of(options)
    spent = privacy_spent(event_of(options), exposure, options.delta)
    added = _delta_of_finite_arithmetic(options, exposure, spent.epsilon)
    return {**spent.table(), **added, "warnings": warnings_of(options)}


def _delta_of_finite_arithmetic(
    options: argparse.Namespace, exposure: Exposure, epsilon: float
) -> dict[str, float]:
    """Return what is to be added to delta for the devices' arithmetic, where they add the noise."""
    at_least(1, pixels=options.pixels)
    if exposure.trust not in COUNTED or not exposure.participations:
        return {}
    replies = exposure.participations * (exposure.honest or 1)  # all that the noise rests on
    coordinates = replies * options.samples * options.pixels
    log10 = finite_arithmetic_log10_delta(coordinates, epsilon)
    return {"delta_of_finite_arithmetic_log10": log10}


def _text(found: dict[str, Any]) -> str:
    shown = {name: value for name, value in found.items() if name != "warnings"}
    if found["trust_model"] != TrustModel.PAPER:
        return "\n".join(f"{name}: {value}" for name, value in shown.items())
    claimed = shown.pop("epsilon")
    lines = [
        f"epsilon: {shown.pop('true_epsilon')} (if every critic starts from the same snapshot)",
        f"epsilon: {shown.pop('true_epsilon_persistent_critics')} (if critics keep their state)",
        f"The published formula says {claimed}. THAT IS NO GUARANTEE; the numbers above are.",
        *(f"{name}: {value}" for name, value in shown.items()),
    ]
    return "\n".join(lines)

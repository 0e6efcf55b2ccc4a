"""``fed-gswgan privacy calibrate``: the noise, or the number of releases, for a target epsilon."""

import argparse
import sys
from dataclasses import replace
from typing import Any

from fed_gswgan.commands.release_options import (
    add_release_options,
    event_of,
    exposure_of,
    warnings_of,
)
from fed_gswgan.privacy.exposure import COUNTED
from fed_gswgan.privacy.privacy_spent import privacy_spent
from fed_gswgan.privacy.trust_calibration import LARGEST_ROUNDS, largest_count, smallest_noise


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("calibrate", help="what meets a target epsilon")
    parser.add_argument("--epsilon", type=float, required=True, help="the target")
    parser.add_argument(
        "--find",
        choices=("noise-stddev", "participations"),
        required=True,
        help="participations of the user; under central trust rounds of the run",
    )
    add_release_options(parser)
    parser.set_defaults(command=privacy_calibrate)


def privacy_calibrate(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was found, and the epsilon it really gives, which is at most the target."""
    if options.find == "noise-stddev":
        return _noise(options)
    return _count(options)


def _noise(options: argparse.Namespace) -> dict[str, Any]:
    _leave_out("noise_stddev", options)
    event = event_of(_with(options, "noise_stddev", 1.0))
    exposure = exposure_of(options)
    noise = smallest_noise(event, exposure, options.delta, options.epsilon)
    spent = privacy_spent(replace(event, noise_stddev=noise), exposure, options.delta)
    return {
        "target_epsilon": options.epsilon,
        "noise_stddev": noise,
        **spent.table(),
        "warnings": warnings_of(options),
    }


def _count(options: argparse.Namespace) -> dict[str, Any]:
    name = "participations" if options.trust in COUNTED else "rounds"
    _leave_out(name, options)
    event, exposure = event_of(options), exposure_of(_with(options, name, 1))
    count = largest_count(event, exposure, options.delta, options.epsilon)
    spent = privacy_spent(event, exposure.with_count(max(count, 1)), options.delta)
    found = {"target_epsilon": options.epsilon, **spent.table(), name: count}
    if count == 0:
        nothing = {"epsilon": 0.0, "mu": 0.0, "noise_multiplier": None}
        found |= {**nothing, "epsilon_of_one": spent.epsilon}
    warnings = warnings_of(options)
    if name == "rounds" and count == LARGEST_ROUNDS:
        warnings.append(f"more than {LARGEST_ROUNDS} rounds were not tried")
        print(f"fed-gswgan: warning: {warnings[-1]}", file=sys.stderr)
    return {**found, "warnings": warnings}


def _leave_out(name: str, options: argparse.Namespace) -> None:
    """Refuse a value of what is looked for."""
    value = getattr(options, name)
    if value is not None:
        raise ValueError(
            f"{name.replace('_', '-')}={value} is what find={options.find} looks for: leave it out"
        )


def _with(options: argparse.Namespace, name: str, value: float) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), name: value})

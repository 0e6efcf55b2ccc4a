"""``fed-gswgan privacy explain RUN``: how a run's epsilon follows from its ledgers."""

import argparse
from pathlib import Path
from typing import Any

from fed_gswgan.config import Config


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("explain", help="each step of a run's epsilon, from its ledgers")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--clients", type=Path, help="folder of its clients' folders; default RUN/clients"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=privacy_explain, render=_text)


def privacy_explain(options: argparse.Namespace) -> dict[str, Any]:
    """Return the steps for the user who spent most."""
    from fed_gswgan.reporting.explanation import explanation, worst_user
    from fed_gswgan.reporting.run_folder import config_of_run

    config = Config.from_run_config(config_of_run(options.run))
    clients = options.clients or options.run / "clients"
    return {
        "run": str(options.run),
        "unit": "user",
        "seeded_noise": config.sanitizer.noise_source == "seeded",
        **explanation(worst_user(clients, config), config.sanitizer.dct_frequencies),
    }


def _text(found: dict[str, Any]) -> str:
    relation, delta = found["neighboring_relation"], found["delta"]
    lines = [
        f"epsilon = {found['epsilon']:.6g} at delta = {delta:g}: user {found['user']}, who spent "
        f"most in {found['run']}. Each step:",
        "",
        f"1. What left the device, by its ledger ({found['ledger']}):",
    ]
    for release in found["releases"]:
        whole = "each row" if release["clipping"] == "sample" else "the reply as a whole"
        lines.append(
            f"   {release['count']} replies of B = {release['samples']} rows, {whole} clipped to "
            f"L2 norm <= C = {release['clipping_bound']:g}, then noise of standard deviation "
            f"{release['noise_stddev']} C on every coordinate, added by the "
            f"{release['noise_added_by']}"
        )
    moved = {
        "replace-one": "exchanged for any other data, a clipped value moves by at most 2 C",
        "zero-out": "replaced by zeros, a clipped value moves by at most C",
    }[relation]
    lines += [
        "",
        f"2. How far the user moves a reply ({relation}: {moved}), and mu = that / noise:",
    ]
    for release in found["releases"]:
        root = f"sqrt({release['samples']}) x " if release["clipping"] == "sample" else ""
        lines.append(
            f"   {root}{release['row_sensitivity']:g} C = {release['reply_sensitivity']:.6g} C;  "
            f"mu of one reply = {release['reply_sensitivity']:.6g} / {release['noise_stddev']} = "
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
        added = f"10^{found['delta_of_finite_arithmetic_log10']:.0f}"
        lines.append(
            f"5. Finite arithmetic adds {added} to delta, for {found['coordinates_released']:,} "
            "released coordinates"
        )
    lines += ["", f"What must be believed: {found['must_be_believed']}"]
    lines += [
        "The same from one command: "
        f"fed-gswgan privacy epsilon --trust local --clipping {release['clipping']} "
        f"--noise-stddev {release['noise_stddev']} --samples {release['samples']} "
        f"--participations {release['count']} --delta {found['delta']} "
        f"--neighboring {found['neighboring_relation']}"
        for release in found["releases"]
        if len(found["releases"]) == 1 and found["trust_model"] == "local"
    ]
    if found["seeded_noise"]:
        lines.append(
            "The noise of this run came from a seed, so it protects nobody; the epsilon is that of "
            "the same run with secure noise."
        )
    return lines

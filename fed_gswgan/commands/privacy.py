"""``fed-gswgan privacy``: epsilon, calibration, reachable epsilons, explanation and audit."""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fed_gswgan.accounting.calibrate import LARGEST_ROUNDS, largest_count, smallest_noise
from fed_gswgan.accounting.report import CENTRAL_SAMPLING, finite_arithmetic_log10_delta, reachable
from fed_gswgan.accounting.trust import (
    COUNTED,
    CriticState,
    Exposure,
    SamplingMethod,
    TrustModel,
    must_be_believed,
    privacy_spent,
)
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation
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


def event_of(options: argparse.Namespace) -> Event:
    """Return what is released at a time."""
    if options.noise_stddev is None:
        raise ValueError("noise-stddev must be given")
    return Event(
        rows=options.samples,
        numbers=1,
        bounded=options.clipping,
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


def _add_epsilon(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("epsilon", help="epsilon of equal releases about a user")
    add_release_options(parser)
    parser.add_argument(
        "--pixels", type=int, default=784, help="of an image: how many numbers a row holds"
    )
    parser.set_defaults(command=privacy_epsilon, render=_epsilon_text)


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


def _epsilon_text(found: dict[str, Any]) -> str:
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


def _add_calibrate(commands: Any) -> None:
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


POPULATIONS = (100, 1_000, 10_000, 100_000, 1_000_000)
COLUMNS = {
    "population": "population",
    "delta": "delta",
    "cohort": "cohort",
    "participations": "replies",
    "local_sample": "local sample",
    "local_message": "local message",
    "secure_aggregation": "secure agg.",
    "central": "central",
}


def _add_table(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("table", help="epsilon that populations of some sizes can have")
    parser.add_argument("--populations", type=int, nargs="+", default=list(POPULATIONS))
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--cohort", type=int, default=100, help="users in a round")
    parser.add_argument("--samples", type=int, default=32, help="rows of a reply")
    parser.add_argument(
        "--noise-stddev", type=float, default=2.14, help="of a client, in units of C"
    )
    parser.add_argument(
        "--neighboring",
        choices=[str(relation) for relation in NeighboringRelation],
        default=str(NeighboringRelation.REPLACE_ONE),
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw it too")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=privacy_table, render=_table_text)


def privacy_table(options: argparse.Namespace) -> dict[str, Any]:
    """Return a row for each population, and what each column asks to believe."""
    if options.plot is not None and options.plot.suffix != ".png":
        raise ValueError(f"plot={options.plot} must end in .png")
    relation = NeighboringRelation(options.neighboring)
    event = Event(
        rows=options.samples,
        numbers=1,
        bounded="sample",
        clipping_bound=1.0,
        noise_stddev=options.noise_stddev,
    )
    rows = [
        asdict(reachable(population, options.cohort, options.rounds, event, relation))
        for population in options.populations
    ]
    title = (
        f"{options.rounds} rounds of {options.cohort}, {options.samples} samples, "
        f"noise-stddev {options.noise_stddev:g}, {relation}"
    )
    if options.plot is not None:
        from fed_gswgan.reporting.pictures import save_reachable_plot

        save_reachable_plot(rows, title, options.plot)
    believed = (TrustModel.LOCAL, TrustModel.SECURE_AGGREGATION, TrustModel.CENTRAL)
    return {
        "settings": title,
        "neighboring_relation": str(relation),
        "unit": "user",
        "rows": rows,
        "must_be_believed": {
            str(trust): must_be_believed(trust, CENTRAL_SAMPLING[relation]) for trust in believed
        },
    }


def _table_text(found: dict[str, Any]) -> str:
    cells = [list(COLUMNS.values())]
    cells += [[_cell(row[name]) for name in COLUMNS] for row in found["rows"]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"epsilon of a user; {found['settings']}", ""]
    lines += [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    lines += ["", "What must be believed:"]
    lines += [f"  {trust}: {belief}" for trust, belief in found["must_be_believed"].items()]
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _add_explain(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("explain", help="each step of a run's epsilon, from its ledgers")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--clients", type=Path, help="folder of its clients' folders; default RUN/clients"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=privacy_explain, render=_explain_text)


def privacy_explain(options: argparse.Namespace) -> dict[str, Any]:
    """Return the steps for the user who spent most."""
    from fed_gswgan.reporting.explanation import explanation, worst_user
    from fed_gswgan.reporting.run_folder import read_run

    shared = read_run(options.run).config.shared
    clients = options.clients or options.run / "clients"
    return {
        "run": str(options.run),
        "unit": "user",
        "seeded_noise": shared.noise_source == "seeded",
        **explanation(worst_user(clients, shared)),
    }


def _explain_text(found: dict[str, Any]) -> str:
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
    moved = {
        "replace-one": "exchanged for any other data, a clipped value moves by at most 2 C",
        "zero-out": "replaced by zeros, a clipped value moves by at most C",
    }[relation]
    lines += [
        "",
        f"2. How far the user moves a reply ({relation}: {moved}), and mu = that / noise:",
    ]
    for release in found["releases"]:
        root = f"sqrt({release['rows']}) x " if release["bounded"] == "sample" else ""
        lines.append(
            f"   {root}{release['row_sensitivity']:g} C = {release['release_sensitivity']:.6g} C;  "
            f"mu of one reply = {release['release_sensitivity']:.6g} / {release['noise_stddev']} = "
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
        f"fed-gswgan privacy epsilon --trust local --clipping {release['bounded']} "
        f"--noise-stddev {release['noise_stddev']} --samples {release['rows']} "
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


REPEATS = 4000
WORTH = (
    "An audit can only refute: a violation is real, but for one sound sanitizer in a thousand. "
    "Its absence proves nothing; it says that these cases, repeated so often, did not tell two "
    "neighbouring worlds apart better than the claim allows."
)


def _add_audit(commands: Any) -> None:
    """Add the command and its options."""
    audit = commands.add_parser(
        "audit", help="attack the sanitizer of this machine with worst cases; about a minute"
    )
    audit.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        metavar="N",
        help=f"releases in each world of a case; more find smaller defects; default {REPEATS}",
    )
    audit.add_argument("--json", action="store_true")
    audit.set_defaults(
        command=privacy_audit, render=_audit_text, verdict=lambda result: not result["violations"]
    )


def privacy_audit(options: argparse.Namespace) -> dict[str, Any]:
    """Return every check and every worst case, and the titles of those that were violated."""
    from rich.console import Console
    from rich.progress import Progress

    from fed_gswgan.accounting.audit import audit, shipped
    from fed_gswgan.privacy.noise import SecureNoise

    # No refreshing thread: the audit forks.
    with Progress(
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("worst cases", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, refresh=True)

        report = audit(shipped(SecureNoise()), repeats=options.repeats, on_progress=show)
    return {
        "sanitizer": "fed_gswgan.privacy.mechanism.privatize, secure noise",
        **asdict(report),
        "violations": list(report.violations),
        "worth": WORTH,
    }


def _audit_text(found: dict[str, Any]) -> str:
    lines = [
        f"Audit of {found['sanitizer']}: {found['repeats']} releases in each of two worlds, "
        f"confidence {found['confidence']:.1%} for all together",
        "",
    ]
    violations = set(found["violations"])
    for check in found["checks"]:
        verdict = _verdict(check["title"], violations)
        lines.append(f"{verdict:9}  {check['title']}: {check['found']}; allowed: {check['rule']}")
    lines += [
        "",
        "mu that is claimed, and the least it can be by what was seen; the latter read as epsilon "
        f"at delta {found['delta']:g}:",
        "",
        f"{'verdict':9}  {'claimed':>7}  {'least':>6}  {'epsilon':>7}  worst case",
    ]
    for case in found["cases"]:
        numbers = (
            f"{case['claimed_mu']:7.3f}  {case['mu_lower_bound']:6.3f}  "
            f"{case['epsilon_lower_bound']:7.2f}"
        )
        fault = f": {case['fault']}" if case["fault"] else ""
        lines.append(f"{_verdict(case['title'], violations):9}  {numbers}  {case['title']}{fault}")
    count = len(found["checks"]) + len(found["cases"])
    verdict = f"{len(violations)} violations in {count} attempts."
    return "\n".join([*lines, "", verdict, *textwrap.wrap(found["worth"], 100)])


def _verdict(title: str, violations: set[str]) -> str:
    return "VIOLATION" if title in violations else "ok"


def main(arguments: Sequence[str]) -> int:
    """Run a command of the group and return its exit status."""
    parser = argparse.ArgumentParser(prog="fed-gswgan privacy", description=__doc__)
    parser.set_defaults(render=_lines, verdict=lambda found: True)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_epsilon, _add_calibrate, _add_table, _add_explain, _add_audit):
        add(commands)
    options = parser.parse_args(arguments)
    found = options.command(options)
    print(json.dumps(found, allow_nan=False) if options.json else options.render(found))
    return 0 if options.verdict(found) else 1


def _lines(found: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in found.items())

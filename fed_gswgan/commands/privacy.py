"""``fed-gswgan privacy``: epsilon, calibration, reachable epsilons, explanation and audit."""

import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fed_gswgan.commands.output import Json, show
from fed_gswgan.validation import at_least

if TYPE_CHECKING:
    from fed_gswgan.accounting.trust import Exposure
    from fed_gswgan.privacy.mechanism import Event

privacy = typer.Typer(
    no_args_is_help=True, help="epsilon and noise, a run's epsilon explained, an audit"
)

COUNTED_TRUST = ("local", "secure-aggregation")
COUNTED = "Local and secure-aggregation trust"
SAMPLED = "Central and paper trust"
Trust = Annotated[Literal["local", "secure-aggregation", "central", "paper"], typer.Option()]
Neighboring = Annotated[Literal["replace-one", "zero-out"], typer.Option()]
Delta = Annotated[float, typer.Option()]
Samples = Annotated[int, typer.Option(help="rows of a release")]
Clipping = Annotated[Literal["sample", "message"], typer.Option()]
NoiseStddev = Annotated[
    float | None,
    typer.Option(help="on a coordinate of a row, in units of C; under central trust, of the sum"),
]
Participations = Annotated[
    int | None, typer.Option(help="replies of the user", rich_help_panel=COUNTED)
]
Honest = Annotated[
    int | None, typer.Option(help="honest survivors in every secure sum", rich_help_panel=COUNTED)
]
Rounds = Annotated[int | None, typer.Option(rich_help_panel=SAMPLED)]
Sampling = Annotated[
    Literal["poisson", "fixed-size", "revealed"] | None, typer.Option(rich_help_panel=SAMPLED)
]
Cohort = Annotated[int | None, typer.Option(help="users in a round", rich_help_panel=SAMPLED)]
SamplingProbability = Annotated[
    float | None, typer.Option(help="cohort over population", rich_help_panel=SAMPLED)
]
CriticStart = Annotated[
    Literal["snapshot", "persistent"] | None, typer.Option(rich_help_panel=SAMPLED)
]
Population = Annotated[int | None, typer.Option(help="users; delta should be below one over it")]


@privacy.command()
def epsilon(
    trust: Trust,
    neighboring: Neighboring,
    delta: Delta,
    samples: Samples,
    clipping: Clipping = "sample",
    noise_stddev: NoiseStddev = None,
    participations: Participations = None,
    honest: Honest = None,
    rounds: Rounds = None,
    sampling: Sampling = None,
    cohort: Cohort = None,
    sampling_probability: SamplingProbability = None,
    critic_state: CriticStart = None,
    population: Population = None,
    pixels: Annotated[int, typer.Option(help="of an image: how many numbers a row holds")] = 784,
    as_json: Json = False,
) -> None:
    """Compute epsilon of equal releases about a user."""
    from fed_gswgan.accounting.report import (
        finite_arithmetic_log10_delta,
        no_guarantee,
        said_of_finite_arithmetic,
    )
    from fed_gswgan.accounting.trust import privacy_spent

    at_least(1, pixels=pixels)
    counts = {"participations": participations, "rounds": rounds, "honest": honest}
    selection = (sampling, cohort, population, sampling_probability, critic_state)
    exposure = _exposure(trust, neighboring, counts, *selection)
    found = privacy_spent(_event(samples, clipping, noise_stddev), exposure, delta).table()
    further = []
    if participations:
        replies = participations * (honest or 1)  # all that the noise rests on
        log10 = finite_arithmetic_log10_delta(replies * samples * pixels, found["epsilon"])
        found["delta_of_finite_arithmetic_log10"] = log10
        if no_guarantee(log10, delta):
            further = [said_of_finite_arithmetic(log10, delta)]
    found["warnings"] = _warnings(delta, population, *further)
    show(found, as_json, _epsilon_text)


@privacy.command()
def calibrate(
    epsilon: Annotated[float, typer.Option(help="the target")],
    find: Annotated[
        Literal["noise-stddev", "participations"],
        typer.Option(help="participations of the user; under central trust rounds of the run"),
    ],
    trust: Trust,
    neighboring: Neighboring,
    delta: Delta,
    samples: Samples,
    clipping: Clipping = "sample",
    noise_stddev: NoiseStddev = None,
    participations: Participations = None,
    honest: Honest = None,
    rounds: Rounds = None,
    sampling: Sampling = None,
    cohort: Cohort = None,
    sampling_probability: SamplingProbability = None,
    critic_state: CriticStart = None,
    population: Population = None,
    as_json: Json = False,
) -> None:
    """Find the noise, or the number of releases, that meets a target epsilon."""
    from fed_gswgan.accounting.calibrate import LARGEST_ROUNDS, largest_count, smallest_noise
    from fed_gswgan.accounting.trust import privacy_spent

    sought = find if find == "noise-stddev" or trust in COUNTED_TRUST else "rounds"
    given = {"noise-stddev": noise_stddev, "participations": participations, "rounds": rounds}
    if given[sought] is not None:
        raise ValueError(f"{sought}={given[sought]} is what find={find} looks for: leave it out")
    given[sought] = 1  # plays no part in the search
    event = _event(samples, clipping, given.pop("noise-stddev"))
    selection = (sampling, cohort, population, sampling_probability, critic_state)
    exposure = _exposure(trust, neighboring, {**given, "honest": honest}, *selection)
    found: dict[str, Any] = {"target_epsilon": epsilon}
    further = []
    if sought == "noise-stddev":
        found["noise_stddev"] = smallest_noise(event, exposure, delta, epsilon)
        event = replace(event, noise_stddev=found["noise_stddev"])
        found |= privacy_spent(event, exposure, delta).table()
    else:
        count = largest_count(event, exposure, delta, epsilon)
        spent = privacy_spent(event, exposure.with_count(max(count, 1)), delta)
        found |= {**spent.table(), sought: count}
        if count == 0:
            found |= {"epsilon": 0.0, "mu": 0.0, "noise_multiplier": None}
            found["epsilon_of_one"] = spent.epsilon
        if sought == "rounds" and count == LARGEST_ROUNDS:
            further = [f"more than {LARGEST_ROUNDS} rounds were not tried"]
    found["warnings"] = _warnings(delta, population, *further)
    show(found, as_json)


@privacy.command()
def table(
    populations: Annotated[
        str, typer.Option(help="users, with commas between")
    ] = "100,1000,10000,100000,1000000",
    rounds: int = 1000,
    cohort: Annotated[int, typer.Option(help="users in a round")] = 100,
    samples: Annotated[int, typer.Option(help="rows of a reply")] = 32,
    noise_stddev: Annotated[float, typer.Option(help="of a client, in units of C")] = 2.14,
    neighboring: Neighboring = "replace-one",
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="draw it too")] = None,
    as_json: Json = False,
) -> None:
    """Compute the epsilon that populations of some sizes can have."""
    from fed_gswgan.accounting.report import CENTRAL_SAMPLING, reachable
    from fed_gswgan.accounting.trust import TrustModel, must_be_believed
    from fed_gswgan.privacy.mechanism import NeighboringRelation

    if plot is not None and plot.suffix != ".png":
        raise ValueError(f"plot={plot} must end in .png")
    if not all(word.strip().isdecimal() for word in populations.split(",")):
        raise ValueError(f"populations={populations} must be whole numbers with commas between")
    sizes = [int(word) for word in populations.split(",")]
    relation = NeighboringRelation(neighboring)
    event = _event(samples, "sample", noise_stddev)
    rows = [asdict(reachable(size, cohort, rounds, event, relation)) for size in sizes]
    title = (
        f"{rounds} rounds of {cohort}, {samples} samples, noise-stddev {noise_stddev:g}, {relation}"
    )
    if plot is not None:
        from fed_gswgan.reporting.pictures import save_reachable_plot

        save_reachable_plot(rows, title, plot)
    believed = (TrustModel.LOCAL, TrustModel.SECURE_AGGREGATION, TrustModel.CENTRAL)
    found = {
        "settings": title,
        "neighboring_relation": str(relation),
        "unit": "user",
        "rows": rows,
        "must_be_believed": {
            str(trust): must_be_believed(trust, CENTRAL_SAMPLING[relation]) for trust in believed
        },
    }
    show(found, as_json, _table_text)


@privacy.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")],
    clients: Annotated[
        Path | None, typer.Option(help="folder of its clients' folders; default RUN/clients")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show each step of a run's epsilon, from its ledgers, for the user who spent most."""
    from fed_gswgan.reporting.explanation import explanation_of_run, explanation_text

    show(explanation_of_run(run, clients), as_json, explanation_text)


@privacy.command()
def audit(
    device: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="attack the guard that this device's folder builds: on a temporary copy with "
            "made-up images; no budget is spent, no ledger or image of the owner is touched",
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(metavar="N", help="releases in each world; more find smaller defects"),
    ] = 4000,
    draws: Annotated[
        int,
        typer.Option(metavar="N", help="of noise; a repetition that comes later is not seen"),
    ] = 2**23,
    as_json: Json = False,
) -> None:
    """Attack the sanitizer of this machine with worst cases, or a device's guard."""
    from rich.console import Console
    from rich.progress import Progress

    # No refreshing thread: the audit forks.
    with Progress(
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("checks and worst cases", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, refresh=True)

        if device is not None:
            from fed_gswgan.device.audit import audit_guard

            audited = f"the guard of {device}, on a copy with made-up images"
            report = audit_guard(device, draws=draws, on_progress=advance)
        else:
            from fed_gswgan.accounting import audit as auditing
            from fed_gswgan.privacy.noise import SecureNoise

            audited = "fed_gswgan.privacy.mechanism.privatize, secure noise"
            sanitizer = auditing.shipped(SecureNoise())
            report = auditing.audit(sanitizer, repeats=repeats, draws=draws, on_progress=advance)
    found = {
        "sanitizer": audited,
        **asdict(report),
        "violations": list(report.violations),
        "worth": WORTH,
    }
    show(found, as_json, _audit_text, good=not report.violations)


def _event(
    samples: int, clipping: Literal["sample", "message"], noise_stddev: float | None
) -> "Event":
    """Return one release; its errors name the options."""
    from pydantic import ValidationError

    from fed_gswgan.privacy.mechanism import Event
    from fed_gswgan.settings import explain as explain_error

    at_least(1, samples=samples)
    if noise_stddev is None:
        raise ValueError("noise-stddev must be given")
    try:
        return Event(
            rows=samples,
            numbers=1,
            bounded=clipping,
            clipping_bound=1.0,
            noise_stddev=noise_stddev,
        )
    except ValidationError as error:
        raise ValueError(explain_error(error).replace("rows=", "samples=")) from None


def _exposure(
    trust: str,
    neighboring: str,
    counts: dict[str, Any],
    sampling: str | None,
    cohort: int | None,
    population: int | None,
    probability: float | None,
    critic_state: str | None,
) -> "Exposure":
    """Return the trust model and the counts; the paper's sampling need not be given."""
    from fed_gswgan.accounting.trust import CriticState, Exposure, SamplingMethod, TrustModel
    from fed_gswgan.privacy.mechanism import NeighboringRelation

    if population is not None:
        at_least(1, population=population)
    if cohort is not None:
        at_least(1, cohort=cohort)
        if trust in COUNTED_TRUST:
            raise ValueError(f"cohort={cohort} plays no part under trust={trust}: leave it out")
        if probability is not None:
            raise ValueError(
                f"cohort={cohort} says what sampling-probability={probability} does: leave one out"
            )
        if population is None:
            raise ValueError(f"cohort={cohort} needs a population")
        if cohort > population:
            raise ValueError(f"cohort={cohort} must be at most population={population}")
        probability = cohort / population
    elif probability is None and trust not in COUNTED_TRUST:
        raise ValueError(
            f"sampling-probability must be given under trust={trust}, or population and cohort"
        )
    if sampling is None and trust == "paper":
        sampling = "fixed-size"
    return Exposure(
        trust=TrustModel(trust),
        relation=NeighboringRelation(neighboring),
        sampling=SamplingMethod(sampling) if sampling else None,
        sampling_probability=probability,
        critic_state=CriticState(critic_state) if critic_state else None,
        **counts,
    )


def _warnings(delta: float, population: int | None, *further: str) -> list[str]:
    """Return, and print as errors, the limits of what a result says."""
    found = list(further)
    if population is not None and delta > 1 / population:
        found.append(
            f"delta={delta:g} is larger than 1/{population}, one over the population: an epsilon "
            "at it allows to publish a user's data outright"
        )
    for warning in found:
        print(f"fed-gswgan: warning: {warning}", file=sys.stderr)
    return found


def _epsilon_text(found: dict[str, Any]) -> str:
    shown = {name: value for name, value in found.items() if name != "warnings"}
    if found["trust_model"] != "paper":
        return "\n".join(f"{name}: {value}" for name, value in shown.items())
    claimed = shown.pop("epsilon")
    lines = [
        f"epsilon: {shown.pop('true_epsilon')} (if every critic starts from the same snapshot)",
        f"epsilon: {shown.pop('true_epsilon_persistent_critics')} (if critics keep their state)",
        f"The published formula says {claimed}. THAT IS NO GUARANTEE; the numbers above are.",
        *(f"{name}: {value}" for name, value in shown.items()),
    ]
    return "\n".join(lines)


def _table_text(found: dict[str, Any]) -> str:
    cells = [[name.replace("_", " ") for name in found["rows"][0]]]
    cells += [[_cell(value) for value in row.values()] for row in found["rows"]]
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


WORTH = (
    "An audit can only refute: a violation is real, but for one sound sanitizer in a million. "
    "Its absence proves nothing; it says that these cases, repeated so often, did not tell two "
    "neighbouring worlds apart better than the claim allows."
)


def _audit_text(found: dict[str, Any]) -> str:
    verdicts = dict.fromkeys(found["violations"], "VIOLATION")
    lines = [
        f"Audit of {found['sanitizer']}: {found['repeats']} releases in each world, confidence "
        f"{found['confidence']:.4%} for all together",
        "",
    ]
    lines += [
        f"{verdicts.get(check['title'], 'ok'):9}  {check['title']}: {check['found']}"
        + (f"; allowed: {check['rule']}" if check["rule"] else "")
        for check in found["checks"]
    ]
    if found["cases"]:
        lines += [
            "",
            "mu that is claimed, and the least it can be by what was seen; the latter read as "
            f"epsilon at delta {found['delta']:g}:",
            "",
            f"{'verdict':9}  {'claimed':>7}  {'least':>6}  {'epsilon':>7}  worst case",
        ]
    lines += [
        f"{verdicts.get(case['title'], 'ok'):9}  {case['claimed_mu']:7.3f}  "
        f"{case['mu_lower_bound']:6.3f}  {case['epsilon_lower_bound']:7.2f}  {case['title']}"
        + (f": {case['fault']}" if case["fault"] else "")
        for case in found["cases"]
    ]
    count = len(found["checks"]) + len(found["cases"])
    verdict = f"{len(verdicts)} violations in {count} attempts."
    return "\n".join([*lines, "", verdict, *textwrap.wrap(found["worth"], 100)])

"""Rows of the fourth table: what each method runs with, on the digits or on all 62 classes.

A row is a file of ``simulations/configs`` and what changes in it. On the digits all rows have the
writers with at least 40 of them, on all classes every writer of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from fed_gswgan.settings import Value, read_toml
from fed_gswgan.validation import one_of

CONFIGS = Path(__file__).parents[1] / "configs"
EPSILONS = (1.0, 10.0)
DELTA = 1e-5  # of every row but those at a published noise
# Rounds of a generator that begins with blank paper, and steps of its fit.
NO_PRIOR: Mapping[str, Value] = {"prior": "none", "rounds": 12, "fit-steps": 1200}


CLASSES = ("digits", "all")
POPULATION: Mapping[str, int] = {"digits": 411, "all": 1232}  # all of them are asked in each round
_WRITERS: Mapping[str, Mapping[str, Value]] = {
    "digits": {"classes": "digits", "min-images-per-writer": 40},
    "all": {"classes": "all", "min-images-per-writer": 0},
}
_PUBLISHED: Mapping[str, Path] = {
    "digits": CONFIGS / "fed-emnist-digits.toml",
    "all": CONFIGS / "fed-emnist.toml",
}
# As much arithmetic for the clients as GS-WGAN's on the digits: 10 TFLOP over all rounds.
# FedAvg-GAN's clients draw their own samples, which takes most of theirs. The published learning
# rate of the critic, 5e-4, is for the published critic; this one is tuned.
FEDAVG: Mapping[str, Value] = {
    "algorithm": "fedavg-gan",
    "rounds": 595,
    "cohort-size": 10,
    "batch-size": 32,
    "critic-steps": 6,
    "generator-steps": 6,
    "critic-learning-rate": 2e-2,
    "ema-halflife-steps": 20.0,
    "trust": "central",
    "clipping-bound": 0.1,
    "noise-stddev": 0.01,
    "warm-start-steps": 0,
}
UPDATES = 5950  # of clients, of FedAvg-GAN as published
# FedAvg-GAN starts from the prior's generator and critic, whose settings these are.
_FEDAVG_PRIOR: Mapping[str, Value] = {
    "prior": "strokes", "latent-dim": 32, "critic-width": 256, "class-embedding-stddev": 0.05,
}  # fmt: skip
# At epsilon 10 there is little that it may learn: on drawn writers, whose prior alone has a Fréchet
# distance of 3.5, three steps of the generator in all lead to 4.1, thirty to 11.6, 300 to 144.
_FEW_STEPS: Mapping[str, Value] = {"rounds": 3, "generator-steps": 1}
_ALGORITHMS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "cramer": ("GS-WGAN, Cramér critic", {}),
    "mean-embedding": ("DP-MERF, federated", {"algorithm": "mean-embedding"}),
    "private-evolution": ("private evolution", {"algorithm": "private-evolution", "rounds": 1}),
}


@dataclass(frozen=True, kw_only=True)
class FederatedRow:
    """A method with its settings.

    Attributes:
        title: in the table.
        settings: of its runs, but for the seed.
        once: whether it runs for one seed, however many are asked for.
    """

    title: str
    settings: Mapping[str, Value]
    once: bool = True


def rows_of(classes: str) -> dict[str, FederatedRow]:
    """Return the rows by name, of the digits or of all classes."""
    one_of(CLASSES, classes=classes)
    published = {**read_toml(_PUBLISHED[classes]), **_WRITERS[classes]}
    fedavg = {**published, **FEDAVG}
    return {
        "gs-wgan": FederatedRow(title="GS-WGAN, published noise", settings=published),
        "fedavg-gan": FederatedRow(
            title="FedAvg-GAN, published noise", settings=fedavg, once=False
        ),
        **_fedavg(fedavg, classes),
        **_solved(classes),
    }


def _fedavg(published: Mapping[str, Value], classes: str) -> dict[str, FederatedRow]:
    """Return FedAvg-GAN from the prior, and with no more updates at an epsilon that protects."""
    population = POPULATION[classes]
    central: dict[str, Value] = {
        **{key: value for key, value in published.items() if key != "noise-stddev"},
        "epsilon": EPSILONS[-1],
        "delta": DELTA,
        "cohort-size": population,
        "rounds": UPDATES // population,
    }
    secure = {**central, "trust": "secure-aggregation", "honest-share": 0.65}
    rows = {}
    for word, trust, settings in (
        ("", "published noise", published),
        ("-10", "epsilon 10", central),
        ("-secure-10", "secure, epsilon 10", secure),
    ):
        if word:
            title = f"FedAvg-GAN, {trust}"
            rows[f"fedavg-gan{word}"] = FederatedRow(title=title, settings=settings)
        rows[f"fedavg-gan-prior{word}"] = FederatedRow(
            title=f"FedAvg-GAN from the prior, {trust}",
            settings={**settings, **_FEDAVG_PRIOR, **(_FEW_STEPS if word else {})},
            once=bool(word),
        )
    return rows


def _solved(classes: str) -> dict[str, FederatedRow]:
    """Return the methods that are solved in closed form, every writer asked in each round."""
    same = {**_WRITERS[classes], "cohort-size": POPULATION[classes]}
    rows = {}
    for algorithm, local, scratch, epsilon in product(
        _ALGORITHMS, (False, True), (False, True), EPSILONS
    ):
        ours = algorithm == "cramer"
        if local and not (ours and epsilon == EPSILONS[-1]):
            continue
        if scratch and algorithm == "private-evolution":
            continue  # it has nothing but the prior's images to vote for
        title, changes = _ALGORITHMS[algorithm]
        trust = "local" if local else "secure"
        settings = {**read_toml(CONFIGS / f"fed-emnist-{classes}-{trust}.toml"), **same, **changes}
        if scratch:
            rounds = settings["rounds"] if local else NO_PRIOR["rounds"]
            settings |= {**NO_PRIOR, "rounds": rounds}
        name = algorithm + "-local" * local + "-no-prior" * scratch
        start = "no prior" if scratch else "from the prior"
        words = [title, start, *["local"] * local, f"epsilon {epsilon:g}"]
        rows[f"{name}-{epsilon:g}"] = FederatedRow(
            title=", ".join(words),
            settings=settings | {"epsilon": epsilon},
            # On 62 classes a run takes long: three seeds of the headline alone.
            once=not ours or (classes == "all" and (local or scratch)),
        )
    return rows

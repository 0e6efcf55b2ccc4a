"""Attacks on one user, beside the epsilon that is claimed for that user.

``python -m benchmarks.attacks sums`` looks at single sums under secure aggregation, as a server
sees them: 100,000 in each of two worlds, through the shipped mechanism and the modular sum. A
client's release is the longest there is in one direction, or in the opposite one.

``python -m benchmarks.attacks shadows`` looks at what a run publishes, its generator: 100 small
trainings at epsilon 10 with a canary's images in one client's shard, and 100 without the client.

Each prints a lower bound on epsilon that holds with confidence 95 %, whatever the mechanism is.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console

from fed_gswgan.accounting.audit import error_rates
from fed_gswgan.algorithms.base import ClientView, Mean
from fed_gswgan.algorithms.gs_wgan import Client, Server, Settings
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec, spec_of
from fed_gswgan.data.drawn import open_drawn
from fed_gswgan.privacy.gaussian import gaussian_mu
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, grid_step, privatize
from fed_gswgan.privacy.noise import SecureNoise
from fed_gswgan.progress import steps
from fed_gswgan.reporting.progress_bar import bars_on
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request
from server.collect import centred, modulus_bits_for

DELTA = 1e-5
FALSE_ALARM = 0.05
CLIENTS, NUMBERS = 20, 8
AT_ONCE = 20_000  # sums
MOST_THRESHOLDS = 2000
RELATION = NeighboringRelation.REPLACE_ONE


@dataclass(frozen=True)
class Attack:
    """What an attack found.

    Attributes:
        claimed_epsilon: at delta 1e-5.
        epsilon_lower_bound: of what was attacked, with confidence 95 %.
        best_possible: the largest lower bound that so many trials can give.
    """

    claimed_epsilon: float
    epsilon_lower_bound: float
    best_possible: float


def epsilon_lower_bound(present: np.ndarray, changed: np.ndarray) -> float:
    """Return an epsilon that the mechanism behind the scores has at least, but for 5 %.

    Half of the scores choose a threshold, above which a guess says "present". The other half
    gives upper bounds of how often that is wrong (Clopper and Pearson). Differential privacy asks
    for 1 - missed - delta <= exp(epsilon) x accused.

    Args:
        present: independent scores in one world, (N,), of which large ones tell of the canary.
        changed: the same in the other world.

    Source: Kairouz et al., arXiv 1311.0776, theorem 2.1.
    """
    half = len(present) // 2
    seen = np.concatenate([present[:half], changed[:half]])
    thresholds = np.quantile(seen, np.linspace(0, 1, MOST_THRESHOLDS))
    chosen = np.argmax(_epsilons(present[:half], changed[:half], thresholds))
    found = _epsilons(present[half:], changed[half:], thresholds[[chosen]])
    return max(0.0, float(found[0]))


def _epsilons(present: np.ndarray, changed: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    missed, accused = error_rates(present, changed, thresholds, FALSE_ALARM)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(1 - missed - DELTA, 0) / accused))


def best_possible(trials: int) -> float:
    """Return the lower bound that ``trials`` scores a world give where no guess is wrong."""
    counted = trials - trials // 2
    return float(_epsilons(np.ones(counted), np.zeros(counted), np.array([0.5]))[0])


def sums(trials: int, epsilon: float = 1.0, noise_share: float = 1.0) -> Attack:
    """Attack single sums of clients whose shares of noise give ``epsilon`` together.

    Args:
        trials: sums in each world.
        epsilon: claimed.
        noise_share: 1: the noise that the claim needs; less plants a fault.
    """
    event = Event(
        rows=1,
        numbers=NUMBERS,
        bounded="message",
        clipping_bound=1.0,
        noise_stddev=noise_share * _share(epsilon, CLIENTS),
        trust="secure-aggregation",
        honest=CLIENTS,
    )
    request = Request(experiment_id="attack", server_round=1, algorithm="gs-wgan", event=event)
    bits = modulus_bits_for(request, CLIENTS)
    canary = np.eye(1, NUMBERS)[0]
    worlds = [
        np.concatenate(
            [
                _sums(sign * canary, min(AT_ONCE, trials - done), event, bits)
                for done in steps("sums", range(0, trials, AT_ONCE))
            ]
        )
        for sign in (1, -1)
    ]
    found = epsilon_lower_bound(*(world @ canary for world in worlds))
    return Attack(epsilon, found, best_possible(trials))


def _sums(canary: np.ndarray, trials: int, event: Event, bits: int) -> np.ndarray:
    """Return sums, (trials, N), of the canary's release and those of the other clients.

    A row is a client's whole release: rows that are bounded one by one go through the mechanism
    as as many releases would.
    """
    rows = replace(event, rows=trials, bounded="sample")
    noise = SecureNoise()
    total = np.zeros(trials * event.numbers, np.int64)
    for client in range(CLIENTS):
        of_client = canary if client == 0 else np.full(event.numbers, 0.1 * client)
        total += privatize(np.tile(of_client, (trials, 1)), np.empty(0), rows, noise)
        total %= 2**bits
    return centred(total, bits).reshape(trials, event.numbers) * grid_step(event)


SHADOWS = Settings(
    critic="cramer", features="dct", feature_frequencies=4, points=2, fit_steps=20,
    generator_width=8,
)  # fmt: skip
CANARIES = 30  # images of one kind that nobody else has
SHADOW_CLIENTS = 20


def shadows(trials: int, epsilon: float = 10.0) -> Attack:
    """Attack the generators of small trainings, one release of a sum, by what they draw.

    Args:
        trials: trainings in each world.
        epsilon: claimed.
    """
    found = epsilon_lower_bound(*shadow_scores(trials, epsilon))
    return Attack(epsilon, found, best_possible(trials))


def shadow_scores(trials: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a score of each training with the canary, and of each without, both (trials,).

    The canary's images are a black square of class 0; the score is how near its samples come.
    """
    source = open_drawn(30, "digits", 1)
    clients = [source.shard(writer) for writer in source.writer_ids[:SHADOW_CLIENTS]]
    square = np.zeros((CANARIES, 1, 28, 28), np.float32)
    square[:, :, 8:20, 8:20] = 1.0
    canary = ClientDataset(("canary",), square, np.zeros(CANARIES, np.int64))
    nobody = ClientDataset(("canary",), square[:0], np.zeros(0, np.int64))

    def of_world(who: ClientDataset, begin: int) -> np.ndarray:
        seeds = steps("trainings", range(begin, begin + trials))
        trained = (_trained([who, *clients], spec_of(source), epsilon, seed) for seed in seeds)
        return np.array([_score(sampler, square[0]) for sampler in trained])

    return of_world(canary, 0), of_world(nobody, trials)


def _trained(
    clients: list[ClientDataset], spec: DataSpec, epsilon: float, seed: int
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """Train on one sum of the clients' releases and return the sampler."""
    seeds, count = SeedStream(seed), len(clients)
    server, client = Server(SHADOWS, spec, SeedStream(0), 1), Client(SHADOWS, spec)
    query, shape = server.request(1), client.release(1)
    event = Event(
        rows=shape.rows,
        numbers=shape.numbers,
        extra=shape.extra,
        bounded="message",
        clipping_bound=1.0,
        noise_stddev=_share(epsilon, count),
        trust="secure-aggregation",
        honest=count,
    )
    request = Request(
        experiment_id="attack", server_round=1, algorithm="gs-wgan", event=event,
        tensors=query.tensors, scalars=query.scalars,
    )  # fmt: skip
    bits = modulus_bits_for(request, count)

    def view(number: int, images: ClientDataset) -> ClientView:
        return ClientView(f"{number}", (f"{number}",), lambda: images, seeds)

    noise, total = SecureNoise(), np.zeros(event.size, np.int64)
    for number, images in enumerate(clients):
        update = client.update(request, view(number, images))
        total = (total + privatize(update.rows_RN, update.extra_E, event, noise)) % 2**bits
    mean = centred(total, bits) * grid_step(event) / count
    main = shape.rows * shape.numbers
    rows_RN = mean[:main].reshape(shape.rows, shape.numbers)
    noise_of_mean = event.noise_stddev / math.sqrt(count)
    server.step(1, query, Mean(rows_RN, mean[main:], count, noise_of_mean))
    return server.sampler()


def _share(epsilon: float, clients: int) -> float:
    """Return one client's share of the noise, which gives epsilon with those of all others."""
    return RELATION.sensitivity_multiple / (gaussian_mu(epsilon, DELTA) * math.sqrt(clients))


def _score(sampler: Callable[[torch.Tensor, int], torch.Tensor], square: np.ndarray) -> float:
    samples = sampler(torch.zeros(200, dtype=torch.int64), 0)
    return -float((samples - torch.from_numpy(square)).square().mean())


def main(kind: str) -> None:
    """Run an attack and print what it found."""
    with bars_on(Console(stderr=True)):
        found = sums(100_000) if kind == "sums" else shadows(100)
    print(
        f"{kind}: claimed epsilon {found.claimed_epsilon:g}, at least "
        f"{found.epsilon_lower_bound:.3f} with confidence 95 %; so many trials could show "
        f"{found.best_possible:.2f} at most"
    )


if __name__ == "__main__":
    main(sys.argv[1])

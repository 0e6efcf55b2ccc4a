"""Time of a critic's step and of the gradient it answers with, over a floor that is fixed.

The floor is the operations that plain autograd takes for it, counted, at the float32 convolution
peak measured in the same run: nothing that does as many in float32 can be faster. One thread, batch
32; times are the processor's, which are the clock's where nothing else runs.

Usage: python -m benchmarks.critic_step [--repeats 7]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    critic_step,
    sample_gradient,
    set_gradient_by_autograd,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_critic

BATCH, CLASSES = 32, 10
CRITICS = (("conv", 64), ("conv", 16), ("mlp", 256), ("mlp", 128))
GOALS = {("conv", 64): 0.85, ("conv", 16): 1.3}  # of the fastest step, over the floor
SECONDS_A_MEASUREMENT = 0.4
# Input channels, output channels, pixels: the second and third layer of the width-64 critic.
PEAK_SHAPES = ((64, 128, 14), (128, 256, 7))


@dataclass
class Row:
    """One way to compute one thing, and its milliseconds: a median from each repeat."""

    critic: tuple[str, int]
    what: str
    way: str
    run: Callable[[], object]
    floor_gflop: float
    milliseconds: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for critic in CRITICS for row in rows_of(*critic)]
    peaks = []
    for repeat in range(options.repeats):
        peaks.append(peak_gflop_a_second())
        for row in rows:
            row.milliseconds.append(1e3 * statistics.median(seconds_of(row.run)))
        print(f"repeat {repeat + 1}: peak {peaks[-1]:.0f} GFLOP/s", flush=True)
    print_table(rows, max(peaks))
    print_goals(rows, max(peaks))


def rows_of(kind: str, width: int) -> list[Row]:
    """Return the ways to take a step and to answer, each on a critic of its own."""
    draws = torch.Generator().manual_seed(0)
    images, samples = torch.rand(2, BATCH, *IMAGE_SHAPE, generator=draws)
    labels = torch.randint(CLASSES, (BATCH,), generator=draws)
    inputs = images, samples, labels, torch.rand(BATCH, generator=draws)
    config = CriticSettings(critic=kind, critic_width=width)

    def autograd_step(critic: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        set_gradient_by_autograd(critic, *inputs, config)
        optimizer.step()

    def closed_form_step(critic: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        critic_step(critic, optimizer, *inputs, config)

    def answer(critic: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        sample_gradient(critic, samples, labels)

    counted = build_critic(config, DataSpec(IMAGE_SHAPE, CLASSES), seed=0)

    class CountedCritic(nn.Module):
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            scores: Tensor = counted(images.view_as(images), labels)  # no leaf of the graph
            return scores

    counted_critic = CountedCritic()

    floors = {
        "step": gflop(partial(set_gradient_by_autograd, counted_critic, *inputs, config)),
        "answer": gflop(partial(sample_gradient, counted_critic, samples, labels)),
    }
    ways = [
        ("step", "autograd", autograd_step),
        ("step", "closed form", closed_form_step),
        ("answer", "autograd", answer),
    ]
    rows = []
    for what, way, function in ways:
        critic = build_critic(config, DataSpec(IMAGE_SHAPE, CLASSES), seed=0)
        run = partial(function, critic, critic_optimizer(critic, config))
        rows.append(Row((kind, width), what, way, run, floors[what], []))
    return rows


def gflop(run: Callable[[], object]) -> float:
    """Count the operations of products and convolutions, an addition and a product each."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops() / 1e9)


def peak_gflop_a_second() -> float:
    """Measure the fastest float32 convolution of the shapes above, forward."""
    best = 0.0
    for inputs, outputs, pixels in PEAK_SHAPES:
        values = torch.rand(BATCH, inputs, pixels, pixels)
        weight = torch.rand(outputs, inputs, 5, 5)
        run = partial(functional.conv2d, values, weight, stride=2, padding=2)
        best = max(best, gflop(run) / min(seconds_of(run)))
    return best


def seconds_of(run: Callable[[], object]) -> list[float]:
    """Time calls one by one, after one to warm up, for a while and three times at least."""
    run()
    found: list[float] = []
    while len(found) < 3 or sum(found) < SECONDS_A_MEASUREMENT:
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return found


def print_table(rows: list[Row], peak: float) -> None:
    print(f"\nfloat32 convolution peak of one thread, the best of the run: {peak:.1f} GFLOP/s")
    print(
        f"{'critic':<10}{'what':<8}{'way':<23}{'GFLOP':>7}{'floor ms':>10}{'median':>9}{'least':>9}"
        f"{'most':>9}{'over floor':>12}{'over autograd':>15}"
    )
    autograd = {(r.critic, r.what): r for r in rows if r.way == "autograd"}
    for row in rows:
        floor = 1e3 * row.floor_gflop / peak
        found, plain = row.milliseconds, autograd[row.critic, row.what].milliseconds
        median = statistics.median(found)
        against = statistics.median(a / b for a, b in zip(found, plain, strict=True))
        print(
            f"{' '.join(map(str, row.critic)):<10}{row.what:<8}{row.way:<23}{row.floor_gflop:>7.3f}"
            f"{floor:>10.2f}{median:>9.2f}{min(found):>9.2f}{max(found):>9.2f}"
            f"{median / floor:>12.2f}{against:>15.2f}"
        )


def print_goals(rows: list[Row], peak: float) -> None:
    print()
    for critic, goal in GOALS.items():
        steps = [row for row in rows if row.critic == critic and row.what == "step"]
        best = min(steps, key=lambda row: statistics.median(row.milliseconds))
        ratios = [found * peak / (1e3 * best.floor_gflop) for found in best.milliseconds]
        median = statistics.median(ratios)
        print(
            f"{' '.join(map(str, critic))}: fastest step ({best.way}) {median:.2f} of the floor "
            f"({min(ratios):.2f} to {max(ratios):.2f}); goal {goal}: "
            f"{'reached' if median <= goal else 'not reached'}"
        )


if __name__ == "__main__":
    main()

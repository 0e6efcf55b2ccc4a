"""DP-SGD: Poisson batches, gradients clipped row by row, noise on their sum, and its accounting.

Shapes: B batch, R Rényi orders.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from opacus.accountants.analysis import rdp
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn

from fed_gswgan.accounting.trust import DeclaredRelease, SamplingMethod
from fed_gswgan.privacy.mechanism import NeighboringRelation


class ClippedSteps:
    """A network's steps along noisy sums of clipped gradients.

    A sum is divided by the batch size that is expected, as that of a batch is not shown. Between
    two steps the network is used like any other.

    Source: DP-SGD, arXiv 1607.00133, algorithm 1; norms without the gradients of single rows,
        arXiv 2009.03106.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clipping_bound: float,
        noise_multiplier: float,
        batch_size: int,
        noise_seed: int,
    ) -> None:
        """Put hooks on the network's layers, none of which may mix the rows of a batch.

        Args:
            network: lies where it is trained.
            optimizer: of all its weights.
            clipping_bound: of a row's gradient with respect to all weights; an L2 norm.
            noise_multiplier: noise on the sum, in units of the clipping bound.
            batch_size: that is expected.
            noise_seed: of the noise.
        """
        self._per_example = GradSampleModuleFastGradientClipping(
            network, loss_reduction="sum", max_grad_norm=clipping_bound
        )
        self._per_example.disable_hooks()
        noise = torch.Generator(next(network.parameters()).device)
        noise.manual_seed(noise_seed)
        self._optimizer = DPOptimizerFastGradientClipping(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clipping_bound,
            expected_batch_size=batch_size,
            generator=noise,
        )

    def take(self, losses_of: Callable[[nn.Module], Tensor]) -> None:
        """Take one step.

        Args:
            losses_of: the network to losses_B; a row's depends on that row alone.
        """
        self.leave_clipped_gradients(losses_of)
        self._optimizer.step()

    def leave_clipped_gradients(self, losses_of: Callable[[nn.Module], Tensor]) -> None:
        """Leave the sum of the rows' clipped gradients in ``grad`` of every weight.

        Args:
            losses_of: as that of ``take``; of no rows the sum is zero.
        """
        self._per_example.enable_hooks()
        losses_B = losses_of(self._per_example)
        # Once for the norms alone, and again with each row shrunk to the bound.
        losses_B.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        shrinking_B = self._per_example.get_clipping_coef()
        self._optimizer.zero_grad(set_to_none=True)  # the noisy sum of the step before, too
        self._per_example.disable_hooks()
        (shrinking_B * losses_B).sum().backward()  # type: ignore[no-untyped-call]

    def remove_hooks(self) -> None:
        """Leave the network as it was, but for its weights."""
        self._per_example.remove_hooks()


@contextmanager
def hook_warnings_ignored() -> Iterator[None]:
    """Let no step warn that hooks need no gradient at the images, at which torch wonders."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield


def poisson_batch(count: int, probability: float, randomness: np.random.Generator) -> Tensor:
    """Return indices, int64, of those of ``count`` images that their own coins select."""
    return torch.from_numpy(np.flatnonzero(randomness.random(count) < probability))


def noisy_sums(
    what: str, num_images: int, batch_size: int, steps: int, noise_multiplier: float
) -> DeclaredRelease:
    """Return what a noisy sum of clipped gradients in each step releases.

    An image that is zeroed out moves a sum by the clipping bound at most. The number of images is
    taken as known; that of a batch is not shown.

    Args:
        what: is released, in words.
        num_images: that batches are drawn from.
        batch_size: images in a batch on average.
        steps: each on a batch of its own.
        noise_multiplier: noise on a sum, in units of the clipping bound.

    Raises:
        ValueError: fewer images than ``batch_size``.
    """
    if num_images < batch_size:
        raise ValueError(
            f"batch-size={batch_size} must be at most the {num_images} training images"
        )
    return DeclaredRelease(
        what=what,
        mu=1 / noise_multiplier,
        rounds=steps,
        relation=NeighboringRelation.ZERO_OUT,
        sampling=SamplingMethod.POISSON,
        sampling_probability=batch_size / num_images,
    )


# Orders near 1 are for large epsilons; whole orders up to 64 are what such analyses list.
ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(11, 65))


def gaussian_rdp(
    noise_multiplier: float, sampling_probability: float = 1.0, steps: int = 1
) -> np.ndarray:
    """Return the divergences at ``ORDERS`` (R,) of Gaussians, each on a Poisson batch of its own.

    Those of several releases add up.
    """
    return np.asarray(
        rdp.compute_rdp(
            q=sampling_probability, noise_multiplier=noise_multiplier, steps=steps, orders=ORDERS
        )
    )


def renyi_epsilon(rdp_R: np.ndarray, delta: float) -> float:
    """Return the epsilon of divergences at ``ORDERS``."""
    epsilon, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=rdp_R, delta=delta)
    return float(epsilon)

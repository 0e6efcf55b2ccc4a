"""The critic's loss: Wasserstein with gradient penalty and drift penalty.

Shapes: B batch, C channels, H and W image.
"""

import torch
from torch import Tensor, nn


def wasserstein_loss(real_scores_B: Tensor, sample_scores_B: Tensor) -> Tensor:
    """Mean score of samples minus mean score of images; the critic minimises it.

    Source: WGAN, arXiv 1701.07875, section 3.
    """
    return sample_scores_B.mean() - real_scores_B.mean()


def gradient_penalty(
    critic: nn.Module, images_BCHW: Tensor, samples_BCHW: Tensor, labels_B: Tensor, mix_B: Tensor
) -> Tensor:
    """Mean squared distance of the critic's input-gradient norm from 1, between image and sample.

    Args:
        critic: maps (B, 1, 28, 28) and labels to scores (B,).
        images_BCHW: real images.
        samples_BCHW: generated samples of the same labels.
        labels_B: labels both are scored under.
        mix_B: where between sample (0) and image (1) each row is evaluated, uniform in [0, 1].

    Source: WGAN-GP, arXiv 1704.00028, equation 3.
    """
    weights = mix_B.view(-1, 1, 1, 1)
    between = (weights * images_BCHW + (1 - weights) * samples_BCHW).requires_grad_(True)
    scores_B = critic(between, labels_B)
    (gradients,) = torch.autograd.grad(scores_B.sum(), between, create_graph=True)
    norms_B: Tensor = gradients.flatten(1).norm(dim=1)
    return ((norms_B - 1) ** 2).mean()


def drift_penalty(real_scores_B: Tensor) -> Tensor:
    """Mean squared score of images, which keeps scores from drifting away together.

    Source: progressive growing of GANs, arXiv 1710.10196, appendix A.1.
    """
    return (real_scores_B**2).mean()

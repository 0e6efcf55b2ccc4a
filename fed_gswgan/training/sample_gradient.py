"""The one quantity a client computes for the server: the gradient of the generator's loss.

Shapes: B batch, C channels, H and W image.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def sample_gradient(
    critic: Callable[[Tensor, Tensor], Tensor],
    samples_BCHW: Tensor,
    labels_B: Tensor,
    compute: str = "float32",
) -> Tensor:
    """Return d(generator loss) / d(samples), one row a sample; private until sanitized.

    The loss is a sum over the batch, so each row is the gradient of its own sample's loss,
    -critic(sample), and a trained WGAN critic's rows have norm about 1.

    Args:
        critic: scores (samples, labels).
        samples_BCHW: in [0, 1].
        labels_B: their labels.
        compute: bfloat16 lets the critic's layers compute in it.

    Returns:
        Tensor of the samples' shape, float32; may hold non-finite values if the critic diverged.

    Source: GS-WGAN, arXiv 2006.08265: the gradient at the generator's output, the only point
        where information flows back from the critic.
    """
    inputs = samples_BCHW.detach().requires_grad_(True)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=compute == "bfloat16"):
        loss = -critic(inputs, labels_B).sum()
    (gradients,) = torch.autograd.grad(loss, inputs)
    return gradients

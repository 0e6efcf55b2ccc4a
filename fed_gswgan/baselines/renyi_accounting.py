"""The Rényi accounting that DP-SGD is published with, by Opacus; shown beside the true epsilon.

Shapes: R Rényi orders.
"""

import numpy as np
from opacus.accountants.analysis import rdp

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

"""Clip: what bounds the influence of a client's data on what it releases.

Shapes: B batch, C channels, H and W image.
"""

import numpy as np


def clip(gradients_BCHW: np.ndarray, clipping: str, clipping_bound: float) -> np.ndarray:
    """Scale rows, or the whole reply, down to L2 norm at most ``clipping_bound``.

    Args:
        gradients_BCHW: any floating dtype, any values; at most 2^24 of them.
        clipping: ``sample`` or ``message``.
        clipping_bound: C > 0.

    Returns:
        float64 array of the same shape, whose exact norm, float64's rounding included, never
        exceeds C. What is surely inside already is unchanged; a direction is kept; a row with a
        NaN or an infinity becomes a zero row (an exception that depends on data would leak).
        Clipping again changes nothing.
    """
    rows = np.asarray(gradients_BCHW, dtype=np.float64).reshape(len(gradients_BCHW), -1)
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    parts = rows.reshape(1, -1) if clipping == "message" else rows
    # Powers of two are divided by exactly, and keep the square of 1e200 from overflowing.
    exponents = np.frexp(np.abs(parts).max(axis=1, keepdims=True))[1]
    units = np.ldexp(parts, -exponents)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)  # 0, or from 1/2 on
    # A sum of n squares is off by at most n 2^-53 of itself, in whatever order it is taken.
    slack = (parts.shape[1] + 16) * 2.0**-53
    with np.errstate(over="ignore"):  # an infinite norm is a norm beyond the bound
        inside = np.ldexp(lengths, exponents) <= clipping_bound * (1 - slack)
    factors = clipping_bound * (1 - 2 * slack) / np.maximum(lengths, 0.5)
    return np.asarray(np.where(inside, parts, units * factors).reshape(np.shape(gradients_BCHW)))

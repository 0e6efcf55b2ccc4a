"""Gradients that nobody computes and everybody must survive: float32 of shape (B, 1, 4, 4)."""

from collections.abc import Callable

import numpy as np

BOUND = 4.0  # not 1: a sanitizer that forgets the bound somewhere shall be found
IMAGE = (1, 4, 4)
HUGE = 1e6  # times the bound
SUBNORMAL = 1e-40  # times the bound, in float32


def aligned(rows: int, length: float) -> np.ndarray:
    """Return equal rows along the first pixel; ``length`` in units of the bound, here and below."""
    return _rows(rows, lambda row: length)


def alternating_rows(rows: int, length: float) -> np.ndarray:
    """Return rows along the first pixel of which every second one is negative."""
    return _rows(rows, lambda row: length * (-1) ** row)


def single(rows: int, length: float, others: float = 0.0) -> np.ndarray:
    """Return a first row of ``length``, the rest of length ``others``, along the first pixel."""
    return _rows(rows, lambda row: others if row else length)


def alternating_pixels(rows: int, length: float) -> np.ndarray:
    """Return equal rows whose pixels are + and - ``length``."""
    gradients = np.full((rows, *IMAGE), BOUND * length, np.float32)
    gradients[..., ::2] *= -1
    return gradients


def _rows(rows: int, length: Callable[[int], float]) -> np.ndarray:
    gradients = np.zeros((rows, *IMAGE), np.float32)
    gradients[:, 0, 0, 0] = [BOUND * length(row) for row in range(rows)]
    return gradients

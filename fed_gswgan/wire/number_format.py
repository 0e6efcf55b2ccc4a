"""How real numbers are written on the wire: float32, float16, or 8 bits over a public range."""

from typing import Any

import numpy as np

DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_LEVELS = 255


def pack(values: np.ndarray, codec: str, low: float, high: float) -> np.ndarray:
    """Return ``values`` in the codec's dtype, same shape.

    Args:
        values: finite.
        codec: ``float32`` (exact for float32 values), ``float16`` or ``uint8``.
        low: start of a public range; never taken from the values themselves, which would tell
            something of them.
        high: its end; values outside [low, high] are clamped.
    """
    clamped = np.clip(values.astype(np.float64), low, high)
    if codec == "uint8":
        return np.round((clamped - low) / (high - low) * _LEVELS).astype(np.uint8)
    return np.asarray(clamped, dtype=DTYPES[codec])


def unpack(packed: np.ndarray, codec: str, low: float, high: float) -> np.ndarray:
    """Return float32 values of what ``pack`` wrote."""
    if codec == "uint8":
        return (low + packed.astype(np.float64) / _LEVELS * (high - low)).astype(np.float32)
    return packed.astype(np.float32)

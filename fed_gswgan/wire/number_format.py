"""How real numbers are written on the wire: float32, float16, or few bits over a public range.

Shapes: B rows, then any.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

FLOATS: dict[str, Any] = {"float32": np.float32, "float16": np.float16}
BITS = {"uint8": 8, "uint4": 4, "uint2": 2, "uint1": 1}
DTYPES: dict[str, Any] = FLOATS | dict.fromkeys(BITS, np.uint8)
DEFLATED = "-deflate"


def pack(values: np.ndarray, codec: str, low: float, high: float) -> np.ndarray:
    """Return ``values`` in the codec's dtype; a codec of fewer than 8 bits packs each row to bytes.

    Args:
        values: finite, (B, ...).
        codec: ``float32`` (exact for float32 values), ``float16``, or ``uint8``, ``uint4``,
            ``uint2``, ``uint1``: 2^bits equidistant levels, both ends of the range among them.
        low: start of a public range; never taken from the values themselves, which would tell
            something of them.
        high: its end; values outside [low, high] are clamped.
    """
    clamped = np.clip(values.astype(np.float64), low, high)
    if codec in FLOATS:
        return np.asarray(clamped, dtype=FLOATS[codec])
    bits = BITS[codec]
    steps = (clamped - low) / (high - low) * (2**bits - 1)
    levels = np.asarray(np.round(steps), dtype=np.uint8)
    if bits == 8:
        return levels
    binary = np.unpackbits(levels.reshape(len(values), -1, 1), axis=2)[:, :, 8 - bits :]
    return np.packbits(binary.reshape(len(values), -1), axis=1)


def unpack(
    packed: np.ndarray, codec: str, low: float, high: float, shape: Sequence[int]
) -> np.ndarray:
    """Return float32 values, of ``shape``, of what ``pack`` wrote."""
    if codec in FLOATS:
        return packed.astype(np.float32)
    bits = BITS[codec]
    levels = packed
    if bits < 8:
        count = math.prod(shape[1:]) * bits
        binary = np.unpackbits(packed, axis=1, count=count).reshape(len(packed), -1, bits)
        levels = binary @ (2 ** np.arange(bits)[::-1])
    values = low + levels.astype(np.float64) / (2**bits - 1) * (high - low)
    return np.asarray(values, dtype=np.float32).reshape(shape)


def rounding(codec: str, low: float, high: float) -> float:
    """Return how far a number within [low, high] can lie from its packed and unpacked self."""
    if codec in FLOATS:
        return max(abs(low), abs(high)) * float(np.finfo(FLOATS[codec]).eps)
    return (high - low) / (2.0 ** BITS[codec] - 1) / 2


def packed_shape(codec: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of what ``pack`` makes of values of this shape."""
    bits = BITS.get(codec, 8)
    if bits == 8:
        return tuple(shape)
    return (shape[0], -(-math.prod(shape[1:]) * bits // 8))


def deflate(packed: np.ndarray) -> np.ndarray:
    """Return the bytes of an array, compressed without loss."""
    return np.frombuffer(zlib.compress(packed.tobytes(), level=9), dtype=np.uint8)


def inflate(deflated: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the bytes that were deflated, uint8 of ``shape``; never holds more than those.

    Raises:
        ValueError: they are not so many, or not compressed data.
    """
    size = math.prod(shape)
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(deflated.tobytes(), size + 1)
    except zlib.error as error:
        raise ValueError(f"not compressed data: {error}") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"holds not the {size} bytes of shape {tuple(shape)}, compressed")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)

"""Numbers as bytes: whole numbers of few bits, public levels of a range, and deflated pixels.

A release holds whole numbers of grid steps. With 32 bits it is written as it is, with 16 as
float16, and with 8, 4, 2 or 1 bits each number is rounded to the nearest of 2^bits levels, which
lie at odd multiples of a whole number of steps: sums of levels stay exact in int64.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np

BITS = (32, 16, 8, 4, 2, 1)
COARSE_BITS = (8, 4, 2, 1)
FLOAT16_MAX = 65504

# End of the range of levels in standard deviations of the noise, near what keeps most information.
# With 8 bits the bound itself is added to the range.
RANGE_DEVIATIONS = {8: 5.0, 4: 2.5, 2: 1.5, 1: 1.0}


@dataclass(frozen=True)
class Levels:
    """The 2^bits levels that a coarse release is rounded to.

    Attributes:
        bits: 8, 4, 2 or 1.
        half_gap: half the distance of two levels, in grid steps.
    """

    bits: int
    half_gap: int

    @classmethod
    def of(cls, bits: int, deviation_steps: float, bound_steps: float) -> "Levels":
        """Return the levels for noise and bound in grid steps."""
        end = RANGE_DEVIATIONS[bits] * deviation_steps + (bound_steps if bits == 8 else 0.0)
        return cls(bits, max(1, round(end / (2**bits - 1))))

    def index(self, steps: np.ndarray) -> np.ndarray:
        """Return the nearest level of each number, from 0; numbers beyond the range are clamped."""
        below = np.floor_divide(steps, 2 * self.half_gap) + 2 ** (self.bits - 1)
        return np.asarray(np.clip(below, 0, 2**self.bits - 1))

    def value(self, index: np.ndarray) -> np.ndarray:
        """Return levels in grid steps, int64."""
        return np.asarray((2 * index.astype(np.int64) - (2**self.bits - 1)) * self.half_gap)

    def gain(self, deviation_steps: float) -> float:
        """Return what a mean of levels is multiplied by, so that it estimates the mean signal.

        A coordinate is a small signal in Gaussian noise. The mean of its level grows with the
        signal, at 0, by the sum over thresholds of the distance of levels times the density of the
        noise there. With 8 bits nothing is lost, and the gain is 1.
        """
        if self.bits == 8:
            return 1.0
        edge = 2 ** (self.bits - 1) - 1
        thresholds = 2 * self.half_gap * np.arange(-edge, edge + 1) / deviation_steps
        density = np.exp(-(thresholds**2) / 2).sum() / math.sqrt(2 * math.pi)
        return float(deviation_steps / (2 * self.half_gap * density))

    def deviation(self, deviation_steps: float) -> float:
        """Return the standard deviation of a level of pure noise, in grid steps."""
        if self.bits == 8:
            return deviation_steps
        values = self.value(np.arange(2**self.bits))
        edges = np.append(-np.inf, np.append((values[1:] + values[:-1]) / 2, np.inf))
        below = np.array([math.erf(e / deviation_steps / math.sqrt(2)) / 2 for e in edges])
        return float(math.sqrt((np.diff(below) * values.astype(float) ** 2).sum()))


def pack_words(words_N: np.ndarray, width: int) -> bytes:
    """Return whole numbers in [0, 2^width) as ceil(N x width / 8) bytes, width at most 32."""
    whole_bytes = -(-width // 8)
    big_endian = words_N.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 4 - whole_bytes :]
    bits = np.unpackbits(big_endian, axis=1)[:, 8 * whole_bytes - width :]
    return np.packbits(bits).tobytes()


def unpack_words(data: bytes | memoryview, width: int, count: int) -> np.ndarray:
    """Return what ``pack_words`` wrote, int64 (count,).

    Raises:
        ValueError: another number of bytes.
    """
    if len(data) != packed_bytes(width, count):
        raise ValueError(f"holds {len(data)} bytes, must hold {packed_bytes(width, count)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width).reshape(count, width)
    whole_bytes = -(-width // 8)
    padded = np.zeros((count, 8 * whole_bytes), np.uint8)
    padded[:, 8 * whole_bytes - width :] = bits
    parts = np.packbits(padded, axis=1).astype(np.int64)
    return parts @ (256 ** np.arange(whole_bytes)[::-1])


def packed_bytes(width: int, count: int) -> int:
    """Return the length of ``count`` packed numbers of ``width`` bits."""
    return -(-count * width // 8)


def quantise(values: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers in [0, 1] as they are written with so many bits: float32, float16 or uint8.

    Of 8 bits or fewer the bytes are packed and deflated.
    """
    if bits == 32:
        return values
    if bits == 16:
        return values.astype(np.float16)
    levels = np.rint(np.clip(values, 0, 1).astype(np.float64) * (2**bits - 1)).reshape(-1)
    return np.frombuffer(zlib.compress(pack_words(levels, bits), level=9), np.uint8)


def dequantise(written: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 numbers of this shape, of what ``quantise`` wrote.

    Raises:
        ValueError: they are not so many, of another type, or not deflated; never inflates more
            bytes than the shape needs.
    """
    expected = {32: np.float32, 16: np.float16}.get(bits, np.uint8)
    if written.dtype != expected or (bits >= 16 and written.shape != shape):
        raise ValueError(f"is {written.dtype} of shape {written.shape}, must be {shape}")
    if bits >= 16:
        return written.astype(np.float32)
    count = math.prod(shape)
    size = packed_bytes(bits, count)
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(written.tobytes(), size + 1)
    except zlib.error as error:
        raise ValueError(f"is not deflated: {error}") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"does not hold the {size} bytes of shape {shape}")
    levels = unpack_words(content, bits, count).astype(np.float64)
    return np.asarray((levels / (2**bits - 1)).reshape(shape), dtype=np.float32)

"""Tests of noise against the law that it claims: the Gaussian, rounded to a public grid.

Whatever the grid and whatever the noise was added to, a release is first turned into normal
scores: standard normals, independent of each other, if and only if the law is the claimed one. All
tests but the last two read those alone.

Each test takes the probability with which noise as claimed may fail it, and returns what was
found, the rule, and whether it was violated.

Shapes: M messages of R rows of N numbers each, which were all added to the same centers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import betainc, betaincc, chdtr, chdtrc, erf, ndtr, ndtri

Found = tuple[str, str, bool]
FARTHEST = 40.0  # deviations: where a score beyond all that a float64 can say is put
CELLS = 64  # of one deviation, in the finest division
REACH = 8  # deviations; what lies beyond is two more cells
WIDTHS = (1, 8, 64)  # of cells, in finest ones
TAILS = CELLS // 2  # finest cells between two tails
# Sums that are nearly normal get a quarter of their share: their tails are a little heavier.
NEARLY = 4
FEWEST_PAIRS = 2**16  # of two draws at one lag
MOST_SERIES = 2048  # that are compared in pairs
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the hash of a window; odd
MOST_LOOKED_AT = 16  # hashes that came twice
FEWEST_STEPS = 2.0  # of a deviation: a step's last bit is then even but for 5e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Releases of equal centers.

    Attributes:
        steps_MRN: what was released, in steps of the grid, whole numbers.
        centers_RN: what the noise was added to, in steps.
        deviation: of the noise, in steps.
    """

    steps_MRN: np.ndarray
    centers_RN: np.ndarray
    deviation: float

    @cached_property
    def normals_MRN(self) -> np.ndarray:
        """Normal scores, float32."""
        scored = [
            normal_scores(steps - self.centers_RN, self.deviation) for steps in self.steps_MRN
        ]
        return np.array(scored)

    @cached_property
    def normals(self) -> np.ndarray:
        """Normal scores in the order in which they were released."""
        return self.normals_MRN.reshape(-1)


Test = Callable[[Sample, float], Found]


def normal_scores(noise: np.ndarray, deviation: float) -> np.ndarray:
    """Return exact standard normals of noise that was rounded to whole steps, float32.

    Args:
        noise: released steps less the unrounded center; not whole where the center is not.
        deviation: that the noise claims, in steps.

    A release says of the unrounded noise that it lay within half a step, an interval that has a
    known share of the normal's probability. A uniformly chosen quantile of that interval is
    uniform over all releases.

    Source: randomized quantile residuals, Dunn and Smyth (1996).
    """
    sizes = np.abs(noise)
    far, near = ndtr(-(sizes + 0.5) / deviation), ndtr(-(sizes - 0.5) / deviation)
    chosen = far + np.random.default_rng().random(noise.shape) * (near - far)
    scores = np.maximum(ndtri(chosen), -FARTHEST)
    return np.asarray(np.where(noise > 0, -scores, scores), np.float32)


def goodness_of_fit(sample: Sample, false_alarm: float) -> Found:
    """Count scores in cells of three widths, and beyond each half deviation on one side and both.

    Each count is binomial; none of the tests is an approximation.
    """
    normals, last = sample.normals, REACH * CELLS
    cells = np.clip(np.floor(normals * CELLS), -last - 1, last).astype(np.int64) + last + 1
    below = np.concatenate([[0], np.bincount(cells, minlength=2 * last + 2).cumsum()])
    edges = np.concatenate([[-np.inf], np.arange(-last, last + 1) / CELLS, [np.inf]])
    inner, end = np.arange(1, len(edges) - 1), len(edges) - 1
    tails = inner[::TAILS]
    starts = [inner[:-1:width] for width in WIDTHS] + [np.zeros_like(tails), tails]
    ends = [inner[width::width] for width in WIDTHS] + [tails, np.full_like(tails, end)]
    low, high = np.concatenate(starts), np.concatenate(ends)
    names = [f"from {edges[a]:g} to {edges[b]:g}" for a, b in zip(low, high, strict=True)]
    counts, expected = below[high] - below[low], _between(edges[low], edges[high])
    farther = inner[len(inner) // 2 :: TAILS][1:]  # than so much above 0, and below it
    counts = np.append(counts, normals.size - below[farther] + below[end - farther])
    expected = np.append(expected, 2 * ndtr(-edges[farther]))
    names += [f"beyond {edges[a]:g} on both sides" for a in farther]
    chances = _chance_of_count(counts, normals.size, expected)
    worst, limit = int(np.argmin(chances)), false_alarm / len(chances)
    found = (
        f"{counts[worst]:,} draws {names[worst]}, {expected[worst] * normals.size:,.1f} expected "
        f"of {normals.size:,} (probability {chances[worst]:.1g})"
    )
    return found, f"a probability >= {limit:.1g}", bool(chances[worst] < limit)


def kurtosis(sample: Sample, false_alarm: float) -> Found:
    """Compare the excess kurtosis with 0; by the fourth Hermite polynomial, of variance 24."""
    squares = np.square(sample.normals, dtype=np.float64)
    found = float(np.mean(squares * squares - 6 * squares + 3))
    limit = -float(ndtri(false_alarm / (2 * NEARLY))) * math.sqrt(24 / squares.size)
    return f"excess {found:.4f}", f"within {limit:.4f} of 0", abs(found) > limit


def spread(sample: Sample, false_alarm: float) -> Found:
    """Compare sums of squares with chi-square: of all, and of each message, row, column, place.

    Where the centers differ, sizes must not grow or shrink with theirs.
    """
    squares_MRN = np.square(sample.normals_MRN, dtype=np.float64)
    whole = float(squares_MRN.mean())
    chances = [
        2 * np.minimum(chdtr(n, sums), chdtrc(n, sums)) for sums, n in _sums_over_parts(squares_MRN)
    ]
    distances_RN = np.abs(sample.centers_RN)
    weights_RN = distances_RN - distances_RN.mean()
    if length := float(np.linalg.norm(weights_RN)) * math.sqrt(len(squares_MRN)):
        along = float((_sizes(sample.normals_MRN).sum(axis=0) * weights_RN).sum()) / length
        chances += [np.array([2 * NEARLY * ndtr(-abs(along))])]
    chance, of, limit = _least(chances, false_alarm)
    found = f"{whole:.5f} of the claimed variance in {squares_MRN.size:,} draws"
    return f"{found}; {of}: probability {chance:.1g}", f">= {limit:.1g}", chance < limit


def bias(sample: Sample, false_alarm: float) -> Found:
    """Compare means with 0: of all, of each message, row, column, place, and along the centers."""
    normals_MRN = sample.normals_MRN.astype(np.float64)
    chances = [2 * ndtr(-np.abs(sums) / math.sqrt(n)) for sums, n in _sums_over_parts(normals_MRN)]
    length = float(np.linalg.norm(sample.centers_RN))
    if length:
        along = float((normals_MRN.sum(axis=0) * (sample.centers_RN / length)).sum())
        along /= math.sqrt(len(normals_MRN))
        signs = np.sign(sample.centers_RN)
        outward = float((normals_MRN.sum(axis=0) * signs).sum())
        outward /= math.sqrt(len(normals_MRN) * np.count_nonzero(signs))
        chances += [2 * ndtr(-np.abs(np.array([along, outward])))]
    chance, of, limit = _least(chances, false_alarm)
    found = f"mean {normals_MRN.mean():.5f} deviations; {of}: probability {chance:.1g}"
    return found, f">= {limit:.1g}", chance < limit


PARTS = ("all", "one message", "one row", "one column", "one place", "along the data")


def _sums_over_parts(values_MRN: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return the sums of ``PARTS`` but the last, and how many numbers are in each."""
    sums = [
        np.atleast_1d(values_MRN.sum()),
        values_MRN.sum(axis=(1, 2)),
        values_MRN.sum(axis=(0, 2)),
        values_MRN.sum(axis=(0, 1)),
        values_MRN.sum(axis=0).ravel(),
    ]
    return [(found, values_MRN.size // found.size) for found in sums]


def _least(chances: list[np.ndarray], false_alarm: float) -> tuple[float, str, float]:
    """Return the least of the probabilities, its part, and what is too small for it.

    Each part has an equal share of the false alarms.
    """
    limits = [false_alarm / (len(chances) * len(found)) for found in chances]
    least = [float(np.nan_to_num(found).min()) for found in chances]
    part = int(np.argmin([value / limit for value, limit in zip(least, limits, strict=True)]))
    return least[part], PARTS[part], limits[part]


def lags(sample: Sample, false_alarm: float) -> Found:
    """Correlate the draws, and their sizes, with those so many places later, at every lag."""
    count = sample.normals.size
    fewest = min(FEWEST_PAIRS, -(-count // 2))
    sizes = _sizes(sample.normals)
    values = np.clip(sample.normals, -REACH, REACH)
    pairs = np.arange(count - 1, fewest - 1, -1)  # at lags 1, 2, ...
    limit = -float(ndtri(false_alarm / (4 * NEARLY * len(pairs))))
    largest, lag, what = 0.0, 0, ""
    for name, series in (("values", values), ("sizes", sizes)):
        scores = np.abs(_lagged_products(series.astype(np.float32), len(pairs))) / np.sqrt(pairs)
        at = int(np.argmax(scores))
        if not scores[at] <= largest:
            largest, lag, what = float(scores[at]), at + 1, name
    found = f"{largest:.1f} standard errors, {what} at lag {lag:,}, the largest of {len(pairs):,}"
    return found, f"at most {limit:.1f}", largest > limit


def _sizes(normals: np.ndarray) -> np.ndarray:
    """Return the sizes as uniform numbers of mean 0 and variance 1: no single one weighs much."""
    return np.asarray(math.sqrt(12) * (erf(np.abs(normals) / math.sqrt(2)) - 0.5))


def _lagged_products(series: np.ndarray, most: int) -> np.ndarray:
    """Return the sums of products of a series with itself at lags from 1 to ``most``."""
    size = next_fast_len(2 * len(series), real=True)
    spectrum = rfft(series, size)
    return np.asarray(irfft(np.square(np.abs(spectrum)), size)[1 : most + 1])


def repeats(sample: Sample, false_alarm: float) -> Found:
    """Look for a row of draws that comes twice, or comes again with other signs.

    A row is so long that independent draws never give one twice.
    """
    noise = np.abs(sample.steps_MRN - np.rint(sample.centers_RN)).astype(np.uint64).reshape(-1)
    # Two sizes are equal with probability 1 / (sqrt(pi) s), but for the rounding of a center.
    bits = math.log2(math.sqrt(math.pi) * sample.deviation) - 0.25
    wanted = 2 * math.log2(noise.size) - 1 - math.log2(false_alarm)
    length = min(math.ceil(wanted / bits), noise.size // 2)
    windows = noise.size - length + 1
    hashes = np.zeros(windows, np.uint64)
    for place in range(length):
        hashes *= MULTIPLIER
        hashes += noise[place : place + windows]
    ordered = np.sort(hashes)
    rule = f"no {length} draws in a row come twice"
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    for one in twice[:MOST_LOOKED_AT]:
        first, second = np.flatnonzero(hashes == one)[:2]
        if np.array_equal(noise[first : first + length], noise[second : second + length]):
            return f"{length} draws come again {second - first:,} places later", rule, True
    return f"none do among {noise.size:,}", rule, False


def last_bits(sample: Sample, false_alarm: float) -> Found:
    """Count the last bit of the steps at each place, and up to six last bits of all of them.

    They are even, but for 5e-9, if a deviation spans two steps.
    """
    if sample.deviation < FEWEST_STEPS:
        return "a deviation spans less than two steps", "even bits", False
    steps_MRN = sample.steps_MRN.astype(np.int64)
    odd = (steps_MRN & 1).sum(axis=0).ravel()
    share = 2 ** min(6, int(math.log2(sample.deviation / FEWEST_STEPS)) + 1)
    residues = np.bincount((steps_MRN % share).ravel(), minlength=share)
    at_places = float(_chance_of_count(odd, len(steps_MRN), 0.5).min()) * odd.size
    together = float(_chance_of_count(residues, steps_MRN.size, 1 / share).min()) * share
    found = (
        f"probability {min(at_places, 1.0):.1g} at each of {odd.size:,} places, "
        f"{min(together, 1.0):.1g} of {share} remainders"
    )
    return found, f">= {false_alarm / 2:.1g}", min(at_places, together) < false_alarm / 2


def _series(series_of: Callable[[np.ndarray], np.ndarray]) -> Test:
    """Return a test that correlates series of the scores, shape (series, length), in pairs."""

    def correlated(sample: Sample, false_alarm: float) -> Found:
        series = series_of(np.clip(sample.normals_MRN, -REACH, REACH))
        return uncorrelated(series.reshape(len(series), -1), false_alarm)

    return correlated


def uncorrelated(series: np.ndarray, false_alarm: float) -> Found:
    """Compare the largest correlation of two series with what chance allows.

    Source: the inverse hyperbolic tangent of a correlation of n draws is nearly normal, of variance
        1 / (n - 3) (Fisher).
    """
    count, length = series.shape
    if not 2 <= count <= MOST_SERIES or length < CELLS:
        return f"{count:,} of length {length:,} are not compared", "", False
    pairs = math.comb(count, 2)
    limit = math.tanh(-float(ndtri(false_alarm / (2 * pairs))) / math.sqrt(length - 3))
    with np.errstate(invalid="ignore", divide="ignore"):  # series of no variance
        correlations = np.abs(np.corrcoef(series)[np.triu_indices(count, 1)])
    found = float(np.nan_to_num(correlations, nan=1.0).max())
    return (
        f"correlation {found:.4f}, the largest of {pairs:,} pairs",
        f"at most {limit:.4f}",
        found > limit,
    )


TESTS: dict[str, Test] = {
    "goodness of fit": goodness_of_fit,
    "kurtosis": kurtosis,
    "variance": spread,
    "mean": bias,
    "last bits": last_bits,
    "messages are independent": _series(lambda normals_MRN: normals_MRN),
    "rows are independent": _series(lambda normals_MRN: normals_MRN.swapaxes(0, 1)),
    "pixels are independent": _series(lambda normals_MRN: normals_MRN.transpose(2, 0, 1)),
    "lagged draws are independent": lags,
    "no draws come twice": repeats,
}


def whole_law(sample: Sample, false_alarm: float) -> Found:
    """Run every test; return the first that is failed."""
    for name, test in TESTS.items():
        found, rule, refuted = test(sample, false_alarm / len(TESTS))
        if refuted:
            return f"{name}: {found}", rule, True
    return f"{sample.steps_MRN.size:,} draws pass {len(TESTS)} tests", "the claimed law", False


def _between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the probabilities of a standard normal between two edges, exact in both tails."""
    above = low > 0
    first, second = np.where(above, -high, low), np.where(above, -low, high)
    return np.asarray(ndtr(second) - ndtr(first))


def _chance_of_count(counts: np.ndarray, tries: int, probability: np.ndarray | float) -> np.ndarray:
    """Return how likely a binomial count is to be as far out, doubled for its two sides."""
    found = counts.astype(np.float64)
    at_most = np.where(
        found < tries, betaincc(found + 1, np.maximum(tries - found, 1), probability), 1.0
    )
    at_least = np.where(
        found > 0, betainc(np.maximum(found, 1), tries - found + 1, probability), 1.0
    )
    return np.asarray(np.minimum(1.0, 2 * np.minimum(at_most, at_least)))

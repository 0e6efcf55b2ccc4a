"""Gaussian mechanism on a public grid: the event of a release, its bound, its noise, its rounding.

Shapes: R rows of N numbers each and E extra numbers; a release holds R x N + E of them.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fed_gswgan.privacy.noise import NoiseSource, fine_step

# Far outside of use, and far inside what floating point can multiply and square.
NOISE_STDDEVS = (1e-9, 1e9)
CLIPPING_BOUNDS = (1e-30, 1e30)
LARGEST_RELEASE = 2**26  # numbers
Bounded = Literal["sample", "message"]
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

# Under central trust no noise hides the rounding of one update: a step is at most 2^-20 C.
CENTRAL_GRID_BITS = 20
# A sum of many shares of noise is what is released: each share spans 2 to 4 steps.
SHARE_STEPS = 2
# Standard deviations and bits that an int32 release must hold.
WIDEST_NOISE, LARGEST_BITS = 64, 30


class NeighboringRelation(StrEnum):
    """How one user's data may change; it says how noise is read and never changes the noise."""

    REPLACE_ONE = "replace-one"  # the user's data is exchanged for any other
    ZERO_OUT = "zero-out"  # the user's contribution is replaced by zeros, the noise stays

    @property
    def sensitivity_multiple(self) -> int:
        """Distance between two neighbouring values of norm at most C, in units of C."""
        return {NeighboringRelation.REPLACE_ONE: 2, NeighboringRelation.ZERO_OUT: 1}[self]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Event:
    """One release, as accountants read it and ledgers store it.

    Attributes:
        rows: R.
        numbers: N, in each row.
        extra: E, numbers that belong to no row.
        bounded: ``sample``: each row has L2 norm at most C, and so have the extra numbers
            together; ``message``: the whole release has.
        clipping_bound: C.
        noise_stddev: standard deviation of the noise on one coordinate, in units of C: of this
            release under ``local`` trust, of the sum under ``central``, and the share of one
            client under ``secure-aggregation``.
        trust: who adds the noise and who sees the release.
        honest: H, clients whose shares of noise are in every sum the server sees; 1 elsewhere.
    """

    rows: Annotated[int, Field(ge=1, le=LARGEST_RELEASE)]
    numbers: Annotated[int, Field(ge=1, le=LARGEST_RELEASE)]
    extra: Annotated[int, Field(ge=0, le=LARGEST_RELEASE)] = 0
    bounded: Bounded = "sample"
    clipping_bound: Annotated[float, Field(gt=CLIPPING_BOUNDS[0], lt=CLIPPING_BOUNDS[1])]
    noise_stddev: Annotated[float, Field(gt=NOISE_STDDEVS[0], lt=NOISE_STDDEVS[1])]
    trust: Literal["local", "secure-aggregation", "central"] = "local"
    honest: Annotated[int, Field(ge=1, le=2**32)] = 1

    def __post_init__(self) -> None:
        if self.size > LARGEST_RELEASE:
            raise ValueError(f"a release of {self.size} numbers must have <= {LARGEST_RELEASE}")
        if self.trust != "secure-aggregation" and self.honest != 1:
            raise ValueError(f"honest={self.honest} must be 1 under trust={self.trust}")

    @property
    def size(self) -> int:
        """Numbers in the release."""
        return self.rows * self.numbers + self.extra

    @property
    def bounded_parts(self) -> int:
        """Vectors of norm at most C that the release consists of."""
        return self.rows + (self.extra > 0) if self.bounded == "sample" else 1

    def sensitivity(self, relation: NeighboringRelation) -> float:
        """Return the largest L2 change of the release that one user can cause, in units of C."""
        return relation.sensitivity_multiple * math.sqrt(self.bounded_parts)

    def mu(self, relation: NeighboringRelation) -> float:
        """Return mu: the release is mu-Gaussian differentially private.

        Under secure aggregation the release is the sum that the server sees, whose noise has H
        shares.

        Source: Gaussian differential privacy, arXiv 1905.02383.
        """
        return self.sensitivity(relation) / (self.noise_stddev * math.sqrt(self.honest))


def compose(releases: Mapping[Event, int], relation: NeighboringRelation) -> float:
    """Return mu of all releases about one user: the root of the sum of squares.

    Args:
        releases: each event and how often it happened; their order does not matter.
        relation: the neighbouring relation.

    Holds for adaptively chosen releases and for any state kept between them (a critic, an
    optimizer), since the noise of each release is fresh.

    Source: Gaussian differential privacy, arXiv 1905.02383, corollary 3.3.
    """
    return math.sqrt(math.fsum(n * event.mu(relation) ** 2 for event, n in releases.items()))


def seen_alone(releases: Mapping[Event, int]) -> Mapping[Event, int]:
    """Return the releases as if each were seen by itself, with one client's share of noise."""
    found: Counter[Event] = Counter()
    for event, count in releases.items():
        found[replace(event, honest=1)] += count
    return found


def bound(rows_RN: np.ndarray, extra_E: np.ndarray, event: Event) -> np.ndarray:
    """Clip an update to what ``event`` says; float64 (R x N + E,).

    Raises:
        ValueError: the shapes are not those of the event.
    """
    if rows_RN.shape != (event.rows, event.numbers) or extra_E.shape != (event.extra,):
        raise ValueError(f"update of {rows_RN.shape} and {extra_E.shape} is not that of {event}")
    if event.bounded == "message":
        whole = np.concatenate([rows_RN.reshape(1, -1), extra_E[None]], axis=1)
        return clip(whole, event).reshape(-1)
    clipped = clip(rows_RN, event).reshape(-1)
    return np.concatenate([clipped, clip(extra_E[None], event)[0]]) if event.extra else clipped


def clip(parts_PN: np.ndarray, event: Event) -> np.ndarray:
    """Scale each part down to L2 norm at most C.

    Args:
        parts_PN: any floating dtype, any values; at most 2^26 in a part.
        event: has C.

    Returns:
        float64 array of the same shape, in which the exact norm of each part, float64's rounding
        included, never exceeds C. What is surely inside already is unchanged; a direction is kept;
        a part with a NaN or an infinity becomes zero (an exception that depends on data would
        leak). Clipping again changes nothing.
    """
    parts = np.asarray(parts_PN, dtype=np.float64)
    parts = np.where(np.isfinite(parts).all(axis=1, keepdims=True), parts, 0.0)
    # Powers of two are divided by exactly, and keep the square of 1e200 from overflowing.
    exponents = np.frexp(np.abs(parts).max(axis=1, keepdims=True))[1]
    units = np.ldexp(parts, -exponents)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)  # 0, or from 1/2 on
    # A sum of n squares is off by at most n 2^-53 of itself, in whatever order it is taken.
    slack = (parts.shape[1] + 16) * 2.0**-53
    with np.errstate(over="ignore"):  # an infinite norm is a norm beyond the bound
        inside = np.ldexp(lengths, exponents) <= event.clipping_bound * (1 - slack)
    factors = event.clipping_bound * (1 - 2 * slack) / np.maximum(lengths, 0.5)
    return np.asarray(np.where(inside, parts, units * factors))


@lru_cache(maxsize=1024)
def noise_deviation(event: Event) -> float:
    """Return noise_stddev x C, rounded up if at all: the exact product is what is charged."""
    product = event.noise_stddev * event.clipping_bound
    exact = Fraction(event.noise_stddev) * Fraction(event.clipping_bound)
    return product if product >= exact else math.nextafter(product, math.inf)


def grid_step(event: Event) -> float:
    """Return the step of the grid that releases of this event lie on: a public power of two.

    Under local trust it is at most the noise's standard deviation / 2^10, or, where so little noise
    is added that an int32 would not hold the release, what makes it fit.
    """
    if event.trust == "central":
        return math.ldexp(1.0, math.frexp(event.clipping_bound)[1] - 1 - CENTRAL_GRID_BITS)
    deviation = noise_deviation(event)
    largest = event.clipping_bound + WIDEST_NOISE * deviation
    narrowest = math.ldexp(1.0, math.frexp(largest)[1] - LARGEST_BITS)
    if event.trust == "secure-aggregation":
        share_step = math.ldexp(1.0, math.frexp(deviation / SHARE_STEPS)[1] - 1)
        if share_step < narrowest:
            raise ValueError(
                f"noise-stddev={event.noise_stddev:g} of one client's share is too small beside "
                f"clipping-bound={event.clipping_bound:g}: the sum would not fit; use more noise"
            )
        return share_step
    return max(fine_step(deviation), narrowest)


def privatize(
    rows_RN: np.ndarray, extra_E: np.ndarray, event: Event, noise: NoiseSource
) -> np.ndarray:
    """Bound an update, add noise, and round to the grid; the only way out of a client.

    Guarantees:
        * Bounded: before the noise each part has L2 norm at most C, whatever came in.
        * Noised last: nothing that depends on the update happens after the noise but the rounding.
        * Every number is answered; neither shape nor number of draws depends on the data.
        * Under central trust, where the server adds the noise, numbers are rounded towards zero,
          which lengthens no update.

    Returns:
        int64 (R x N + E,), grid steps, each within an int32.

    Source: GS-WGAN, arXiv 2006.08265, gradient sanitization.
    """
    bounded, step = bound(rows_RN, extra_E, event), grid_step(event)
    if event.trust == "central":
        return np.trunc(bounded / step).astype(np.int64)
    return noise.draw(bounded, noise_deviation(event), step)

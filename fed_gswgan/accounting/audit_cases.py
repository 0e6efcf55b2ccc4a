"""Pairs of neighbouring worlds in which a defect of a sanitizer shows most.

Each pair gives the noise of the paper's multiplier, 1.07 times the sensitivity, to the reply as a
whole, so that mu of one reply is 0.93. Under a weaker claim, such as 5.3 at B = 32 and the
paper's noise on a row, noise that rows share or a clip by the mean norm would stay within it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fed_gswgan.privacy.mechanism import (
    Bounded,
    Event,
    NeighboringRelation,
    grid_step,
    noise_deviation,
)
from fed_gswgan.privacy.noise import fine_step

MULTIPLIER = 1.07
SAMPLES = (1, 32)
BOUND = 4.0  # not 1: a sanitizer that forgets the bound somewhere shall be found
HUGE = 1e6  # times the bound
SUBNORMAL = 1e-40  # times the bound, in float32
FLOATS = "which float32 numbers occur"

# Takes the gradients of one reply or of several in a row, all under one event; returns the values
# that would leave the client, an array for each.
SanitizeMessages = Callable[[Sequence[np.ndarray], Event], Sequence[Any]]
Messages = tuple[np.ndarray, ...]  # float32 of shape (B, 1, 4, 4), not yet clipped
Score = Callable[[Sequence[np.ndarray]], float]


class FaultyRelease(Exception):
    """No answer, or one whose form says something about the data."""


def release(
    sanitize_messages: SanitizeMessages,
    messages: Sequence[np.ndarray],
    event: Event,
) -> Sequence[np.ndarray]:
    """Sanitize copies of ``messages``, float32 of shape (B, C, H, W), as a client would.

    Raises:
        FaultyRelease: an exception, another shape or number of answers, values that are not
            float32, not finite, or not on the public grid. Each tells something of the data,
            whatever the values are.
    """
    try:
        released = sanitize_messages([message.copy() for message in messages], event)
    except Exception as error:
        raise FaultyRelease(f"{type(error).__name__}: {error}") from error
    if len(released) != len(messages):
        raise FaultyRelease(f"{len(released)} answers to {len(messages)} messages")
    for message, values in zip(messages, released, strict=True):
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            raise FaultyRelease(f"{getattr(values, 'dtype', type(values))} instead of float32")
        if values.shape != message.shape:
            raise FaultyRelease(f"shape {values.shape} instead of {message.shape}")
        if not np.isfinite(values).all():
            raise FaultyRelease("values that are not finite")
        steps = values.astype(np.float64) / released_step(event)
        if not (steps == np.rint(steps)).all():
            raise FaultyRelease("values between the steps of the public grid")
    return released


def released_step(event: Event) -> float:
    """Return the step of the grid that releases lie on; under central trust of noised sums."""
    return fine_step(noise_deviation(event)) if event.trust == "central" else grid_step(event)


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstCase:
    """Two neighbouring worlds, and how to tell a release of the one from one of the other.

    Attributes:
        name: of the pair; several cases share it.
        event: what each message is charged.
        relation: how the worlds differ.
        present: gradients of each message.
        changed: the same from other data (replace-one), or zeros (zero-out).
        score: large where a release looks like one of ``present``.
    """

    name: str
    event: Event
    relation: NeighboringRelation
    present: Messages
    changed: Messages
    score: Score

    @property
    def title(self) -> str:
        """Name and setting."""
        setting = f"{self.relation}, {self.event.bounded}, B={self.event.rows}"
        return f"{self.name} ({setting})"


def worst_cases() -> tuple[WorstCase, ...]:
    """Return every pair at both clippings and at each number of rows in ``SAMPLES``."""
    found = []
    clippings: tuple[Bounded, ...] = ("sample", "message")
    for rows, clipping, relation in product(SAMPLES, clippings, NeighboringRelation):
        parts = rows if clipping == "sample" else 1
        event = Event(
            rows=rows,
            numbers=1,
            bounded=clipping,
            clipping_bound=BOUND,
            noise_stddev=MULTIPLIER * relation.sensitivity_multiple * math.sqrt(parts),
        )
        replaced = relation is NeighboringRelation.REPLACE_ONE
        for name, present, changed in _replaced(rows) if replaced else _zeroed(rows):
            score = (
                unreachable_by_single_precision(event)
                if name == FLOATS
                else projection(present, changed, event)
            )
            case = WorstCase(
                name=name,
                event=event,
                relation=relation,
                present=present,
                changed=changed,
                score=score,
            )
            found.append(case)
    return tuple(found)


def _replaced(rows: int) -> Iterator[tuple[str, Messages, Messages]]:
    def mirrored(name: str, *present: np.ndarray) -> tuple[str, Messages, Messages]:
        return name, present, tuple(-message for message in present)

    yield mirrored("all rows at the bound", _equal(rows, 1))
    for power in (2, 6, 30):
        yield mirrored(f"all rows 10^{power} times the bound", _equal(rows, 10.0**power))
    yield mirrored("a subnormal number in every row", _equal(rows, SUBNORMAL))
    yield mirrored("pixels of alternating signs", _checkered(rows, HUGE))
    yield mirrored("two messages of opposite signs", _equal(rows, 1), _equal(rows, -1))
    huge = (_first_pixel([-HUGE] + [0] * (rows - 1)),)
    for value, written in ((math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "-Inf")):
        present = (_first_pixel([value] + [0] * (rows - 1)),)
        yield f"{written} in one pixel against a huge row", present, huge
    if rows > 1:
        long_and_short = _first_pixel([HUGE] + [1e-3] * (rows - 1))
        yield mirrored("one huge row among small ones", long_and_short)
        yield mirrored("rows of opposite signs", _opposite(rows, 1))
        yield mirrored("huge rows that cancel out", _opposite(rows, HUGE))


def _zeroed(rows: int) -> Iterator[tuple[str, Messages, Messages]]:
    def zeroed(name: str, *present: np.ndarray) -> tuple[str, Messages, Messages]:
        return name, present, tuple(np.zeros_like(message) for message in present)

    yield zeroed("all rows at the bound against zero", _equal(rows, 1))
    yield zeroed("all rows 10^30 times the bound against zero", _equal(rows, 1e30))
    yield zeroed("two messages against zero", _equal(rows, 1), _equal(rows, -1))
    yield zeroed(FLOATS, _checkered(rows, 0.1))
    if rows > 1:
        one_huge = _first_pixel([HUGE] + [0] * (rows - 1))
        yield zeroed("one huge row against zero", one_huge)
        yield zeroed("rows of opposite signs against zero", _opposite(rows, 1))


def _first_pixel(lengths: Sequence[float]) -> np.ndarray:
    """Return rows along the first pixel, of these lengths in units of the bound."""
    gradients = np.zeros((len(lengths), 1, 4, 4), np.float32)
    gradients[:, 0, 0, 0] = [BOUND * length for length in lengths]
    return gradients


def _equal(rows: int, length: float) -> np.ndarray:
    return _first_pixel([length] * rows)


def _opposite(rows: int, length: float) -> np.ndarray:
    return _first_pixel([length * (-1) ** row for row in range(rows)])


def _checkered(rows: int, length: float) -> np.ndarray:
    """Return equal rows whose pixels are + and - ``length``, in units of the bound."""
    gradients = np.full((rows, 1, 4, 4), BOUND * length, np.float32)
    gradients[..., ::2] *= -1
    return gradients


def projection(present: Messages, changed: Messages, event: Event) -> Score:
    """Return the score along what a correct sanitizer would change; the best against a Gaussian.

    Source: the likelihood ratio of two Gaussians of one covariance grows along the difference of
        their means (Neyman and Pearson).
    """
    difference = clipped(present, event) - clipped(changed, event)
    direction = difference / np.linalg.norm(difference)
    return lambda released: float(direction @ _joined(released))


def unreachable_by_single_precision(event: Event) -> Score:
    """Return the score that counts values which float32 noise on a zero gradient cannot take.

    A float32 normal times a float32 deviation skips some numbers; one that is skipped proves that
    something was added to the noise.

    Source: Mironov, On significance of the least significant bits for differential privacy
        (CCS 2012), for Laplace noise.
    """
    stddev = np.float32(event.noise_stddev * event.clipping_bound)

    def score(released: Sequence[np.ndarray]) -> float:
        values = np.concatenate([message.ravel() for message in released])
        nearest = (values.astype(np.float64) / float(stddev)).astype(np.float32)
        below, above = (np.nextafter(nearest, np.float32(side)) for side in (-np.inf, np.inf))
        reached = [stddev * normal == values for normal in (below, nearest, above)]
        return float(np.count_nonzero(~np.any(reached, axis=0)))

    return score


def clipped(messages: Sequence[np.ndarray], event: Event) -> np.ndarray:
    """Return what a correct sanitizer adds noise to."""
    rows = [message.reshape(len(message), -1) for message in messages]
    parts = rows if event.bounded == "sample" else [message.reshape(1, -1) for message in rows]
    return _joined([clipped_parts(part, event.clipping_bound) for part in parts])


def clipped_parts(parts_PN: np.ndarray, bound: float) -> np.ndarray:
    """Return each part at most as long as the bound; written apart from the code under audit."""
    parts = parts_PN.astype(np.float64)
    parts[~np.isfinite(parts).all(axis=1)] = 0
    norms = np.linalg.norm(parts, axis=1, keepdims=True)
    return np.asarray(parts / np.maximum(norms / bound, 1))


def _joined(messages: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([message.ravel() for message in messages]).astype(np.float64)

"""Audit of a sanitizer: an attempt to refute its claimed privacy.

It refutes or it does not; it proves nothing. It looks at what is released, not at how long that
took.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, product

import numpy as np
from scipy.special import betainccinv, chdtri, ndtri

from fed_gswgan.accounting.audit_cases import (
    FaultyRelease,
    Messages,
    SanitizeMessages,
    WorstCase,
    release,
    worst_cases,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import Bounded, Event, NeighboringRelation, grid_step, privatize
from fed_gswgan.privacy.noise import NoiseSource
from fed_gswgan.validation import at_least, between

Claim = Callable[[Event, NeighboringRelation], float]


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One worst case.

    Attributes:
        title: name and setting of the case.
        name: of the pair of worlds.
        relation: neighbouring relation.
        clipping: ``sample`` or ``message``.
        samples: rows of a message (B).
        claimed_mu: of all messages of the case.
        mu_lower_bound: not below this, but for the case's share of the false alarms; bounded by
            the number of repeats, however far apart the worlds are.
        epsilon_lower_bound: that mu read as epsilon; a bound on epsilon itself only if the
            release is Gaussian.
        fault: an answer that betrays data by its form alone; None where there was none.
    """

    title: str
    name: str
    relation: str
    clipping: str
    samples: int
    claimed_mu: float
    mu_lower_bound: float
    epsilon_lower_bound: float
    fault: str | None

    @property
    def refuted(self) -> bool:
        """Whether the claim cannot be true."""
        return self.fault is not None or self.mu_lower_bound > self.claimed_mu


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check of clip or noise: what was found, and what a sound sanitizer keeps to."""

    title: str
    found: str
    rule: str
    refuted: bool


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """All that was tried.

    Attributes:
        repeats: releases in each of the two worlds of a case.
        confidence: with which a sound sanitizer passes all cases and checks together.
        delta: at which epsilon is read.
        checks: those of clip and noise.
        cases: those of worst cases, as far as the audit went.
    """

    repeats: int
    confidence: float
    delta: float
    checks: tuple[CheckResult, ...]
    cases: tuple[CaseResult, ...]

    @property
    def violations(self) -> tuple[str, ...]:
        """Titles of what refutes the sanitizer's claim."""
        results: list[CheckResult | CaseResult] = [*self.checks, *self.cases]
        return tuple(result.title for result in results if result.refuted)


def shipped(noise_source: NoiseSource) -> SanitizeMessages:
    """Return the sanitizer that clients run, as an audit calls it."""

    def sanitize(message: np.ndarray, event: Event) -> np.ndarray:
        sized = replace(event, numbers=message[0].size)
        steps = privatize(message.reshape(len(message), -1), np.empty(0), sized, noise_source)
        values: np.ndarray = (steps * grid_step(sized)).astype(np.float32)
        return values.reshape(message.shape)

    return lambda messages, event: [sanitize(message, event) for message in messages]


def audit(
    sanitize_messages: SanitizeMessages,
    *,
    repeats: int,
    confidence: float = 0.999,
    delta: float = 1e-5,
    until_refuted: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Try to refute that ``sanitize_messages`` is as private as its events say.

    Args:
        sanitize_messages: the sanitizer.
        repeats: releases in each world of a case; half of them choose a threshold. Several
            hundred find half the noise; several thousand, noise that is a quarter too small.
        confidence: with which a sound sanitizer passes everything. Checks and cases share the
            rest equally (Bonferroni), so it holds for the audit as a whole.
        delta: at which epsilon is reported; no verdict depends on it.
        until_refuted: stop at the first violation.
        on_progress: called with the number of cases done and that of all.
    """
    at_least(2, repeats=repeats)
    between(0, 1, confidence=confidence)
    between(0, 1, delta=delta)
    cases = worst_cases()
    false_alarm = (1 - confidence) / (len(CHECKS) + len(cases))
    checks = tuple(run_check(title, sanitize_messages, false_alarm) for title in CHECKS)
    stop = until_refuted and any(check.refuted for check in checks)
    results: list[CaseResult] = []
    while len(results) < len(cases) and not stop:
        case = cases[len(results)]
        results.append(try_case(case, sanitize_messages, repeats, false_alarm, delta))
        on_progress(len(results), len(cases))
        stop = until_refuted and results[-1].refuted
    return AuditReport(
        repeats=repeats,
        confidence=confidence,
        delta=delta,
        checks=checks,
        cases=tuple(results),
    )


def try_case(
    case: WorstCase,
    sanitize_messages: SanitizeMessages,
    repeats: int,
    false_alarm: float,
    delta: float = 1e-5,
    claimed_mu: Claim = Event.mu,
) -> CaseResult:
    """Release both worlds of a case ``repeats`` times and bound mu from below.

    Args:
        case: the two worlds.
        sanitize_messages: the sanitizer.
        repeats: releases in each world.
        false_alarm: probability with which a sound sanitizer may be refuted.
        delta: at which epsilon is reported.
        claimed_mu: the accounting under audit, of one message.
    """
    present, fault = _scores(case, case.present, sanitize_messages, repeats)
    changed, other_fault = _scores(case, case.changed, sanitize_messages, repeats)
    bound = mu_lower_bound(present, changed, false_alarm)
    return CaseResult(
        title=case.title,
        name=case.name,
        relation=str(case.relation),
        clipping=case.event.bounded,
        samples=case.event.rows,
        claimed_mu=claimed_mu(case.event, case.relation) * math.sqrt(len(case.present)),
        mu_lower_bound=bound,
        epsilon_lower_bound=gaussian_epsilon(bound, delta),
        fault=fault or other_fault,
    )


def _scores(
    case: WorstCase, world: Messages, sanitize_messages: SanitizeMessages, repeats: int
) -> tuple[np.ndarray, str | None]:
    """Return the scores of a world's releases, infinite where one was faulty, and its fault."""
    scores, fault = np.empty(repeats), None
    for repeat in range(repeats):
        try:
            scores[repeat] = case.score(release(sanitize_messages, world, case.event))
        except FaultyRelease as faulty:
            scores[repeat], fault = math.inf, str(faulty)
    return scores, fault


def mu_lower_bound(present: np.ndarray, changed: np.ndarray, false_alarm: float) -> float:
    """Return a mu that the mechanism behind the scores reaches, but for ``false_alarm``.

    Args:
        present: independent scores in the one world, shape (N,); infinite ones are allowed.
        changed: the same in the other world, where scores are rather smaller.
        false_alarm: probability, in (0, 1), with which the bound may lie above the true mu.

    A guess "present" where a score lies above a threshold is wrong at two rates. The first half of
    the scores chooses the threshold; the second half, which had no say in it, gives an upper bound
    on each rate (Clopper and Pearson), each wrong with half of ``false_alarm``. A mechanism that is
    mu-Gaussian differentially private forces mu >= Phi^-1(1 - rate) - Phi^-1(other rate).

    Source: Gaussian differential privacy, arXiv 1905.02383, definition 2.6.
    """
    at_least(2, scores=min(len(present), len(changed)))
    between(0, 1, false_alarm=false_alarm)
    half = min(len(present), len(changed)) // 2
    seen = np.concatenate([present[:half], changed[:half]])
    thresholds = np.unique(seen[np.isfinite(seen)])
    if not len(thresholds):
        return 0.0
    chosen = np.argmax(_bounds(present[:half], changed[:half], thresholds, false_alarm))
    bound = _bounds(present[half:], changed[half:], thresholds[[chosen]], false_alarm)
    return max(0.0, float(bound[0]))


def _bounds(
    present: np.ndarray, changed: np.ndarray, thresholds: np.ndarray, false_alarm: float
) -> np.ndarray:
    missed, accused = error_rates(present, changed, thresholds, false_alarm)
    return np.asarray(-ndtri(accused) - ndtri(missed))


def error_rates(
    present: np.ndarray, changed: np.ndarray, thresholds: np.ndarray, false_alarm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return upper bounds of how often a guess "present" above each threshold misses and accuses.

    Args:
        present: scores in the one world.
        changed: scores in the other.
        thresholds: chosen without a look at these scores.
        false_alarm: probability with which one of both bounds may be too low.

    Source: Clopper and Pearson, Biometrika 26, 1934.
    """
    false_negatives = np.searchsorted(np.sort(present), thresholds, side="right")
    false_positives = len(changed) - np.searchsorted(np.sort(changed), thresholds, side="right")
    missed = _largest_rates(len(present), false_alarm / 2)[false_negatives]
    accused = _largest_rates(len(changed), false_alarm / 2)[false_positives]
    return missed, accused


@lru_cache
def _largest_rates(count: int, false_alarm: float) -> np.ndarray:
    """Return upper bounds of a rate after 0, 1, ... ``count`` errors in ``count`` tries."""
    errors = np.arange(count)
    return np.append(betainccinv(errors + 1, count - errors, false_alarm), 1.0)


# -- checks of clip and noise that need no pair of worlds. Each takes the sanitizer and the
#    probability with which a sound one may fail, and returns what was found, the rule, and whether
#    it was violated. Those of the noise draw a million values on zero gradients.

Found = tuple[str, str, bool]
Check = Callable[[SanitizeMessages, float], Found]
MESSAGES, ROWS, SIDE = 40, 32, 28
CLIP_ROWS = 8
LONGEST = 1.000001  # times the bound, for float32 and the noise
LENGTHS = (0.0, 1e-40, 0.9, 1.1, 1e2, 1e6, 1e30, math.nan, math.inf)


def _event(samples: int, clipping: Bounded, bound: float, noise: float) -> Event:
    return Event(
        rows=samples, numbers=1, bounded=clipping, clipping_bound=bound, noise_stddev=noise
    )


def _clipped_norm(sanitize_messages: SanitizeMessages, _: float) -> Found:
    """Release extreme gradients under next to no noise; no chance is involved."""
    first_pixel = np.zeros((CLIP_ROWS, 1, 4, 4))
    first_pixel[:, 0, 0, 0] = 1
    single = first_pixel.copy()
    single[1:] *= 0.01
    signs = np.where(np.arange(CLIP_ROWS) % 2, -1.0, 1.0).reshape(CLIP_ROWS, 1, 1, 1)
    shapes = {  # in units of the length
        "equal rows": first_pixel,
        "rows of opposite signs": first_pixel * signs,
        "one long row": single,
        "all pixels": np.ones((CLIP_ROWS, 1, 4, 4)),
    }
    longest, of = 0.0, ""
    for clipping, bound, length, (name, shape) in product(
        ("sample", "message"), (0.25, 4.0), LENGTHS, shapes.items()
    ):
        with np.errstate(invalid="ignore"):  # infinity times zero
            gradients = (shape * length * bound).astype(np.float32)
        event = _event(CLIP_ROWS, clipping, bound, noise=2e-9)
        (values,) = release(sanitize_messages, [gradients], event)
        parts = values.astype(np.float64).reshape(CLIP_ROWS if clipping == "sample" else 1, -1)
        norm = float(np.linalg.norm(parts, axis=1).max()) / bound
        if norm > longest:
            longest, of = norm, f"{name} of length {length:g}, clipping {clipping}"
    return f"{longest:.7g} times the bound ({of})", f"at most {LONGEST}", longest > LONGEST


def _variance(sanitize_messages: SanitizeMessages, false_alarm: float) -> Found:
    """Compare the sum of squares with the quantiles of a chi-square, on both sides."""
    noise = _draw(sanitize_messages)
    degrees = noise.size
    # chdtri takes the probability above its result.
    low, high = (float(chdtri(degrees, p)) for p in (1 - false_alarm / 2, false_alarm / 2))
    # Rounding to a grid of 2^-10 of the deviation adds a twelfth of its square.
    high *= 1 + 2**-20 / 12
    found = float(np.square(noise).sum())
    return (
        f"{found / degrees:.5f} of what is claimed, in {degrees:,} draws",
        f"{low / degrees:.5f} to {high / degrees:.5f}",
        not low <= found <= high,
    )


def _independent(series_of: Callable[[np.ndarray], np.ndarray]) -> Check:
    """Return a check that correlates series of the noise, shape (series, length)."""
    return lambda sanitize_messages, false_alarm: _uncorrelated(
        series_of(_draw(sanitize_messages)), false_alarm
    )


def _shifted(noise_MBP: np.ndarray) -> np.ndarray:
    """Return the pixels, and those beside and below them."""
    noise_HW = noise_MBP.reshape(-1, SIDE, SIDE)
    neighbours = [noise_HW[:, :-1, :-1], noise_HW[:, :-1, 1:], noise_HW[:, 1:, :-1]]
    return np.stack(neighbours).reshape(3, -1)


def _draw(sanitize_messages: SanitizeMessages) -> np.ndarray:
    """Return the noise in units of its claimed deviation: M messages, B rows, P pixels.

    Every second message is sanitized together with the one before.
    """
    event = _event(ROWS, "sample", bound=4.0, noise=2.14)
    zeros = [np.zeros((ROWS, 1, SIDE, SIDE), np.float32)] * 2
    released = [
        values for _ in range(MESSAGES // 2) for values in release(sanitize_messages, zeros, event)
    ]
    noise = np.array(released, np.float64).reshape(MESSAGES, ROWS, -1)
    return noise / (event.noise_stddev * event.clipping_bound)


def _uncorrelated(series: np.ndarray, false_alarm: float) -> Found:
    """Compare the largest correlation of two series with what chance allows.

    Source: the inverse hyperbolic tangent of a correlation of n draws is nearly normal, of variance
        1 / (n - 3) (Fisher).
    """
    count, length = series.shape
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


def _processes(sanitize_messages: SanitizeMessages, _: float) -> Found:
    """Release a zero gradient from two forks of this process and from itself, and compare.

    Noise that comes twice is a seed's, or from a buffer that was copied. Where a system cannot
    fork, two releases of this process are compared.
    """

    def draw() -> bytes:
        zeros = [np.zeros((1, 1, SIDE, SIDE), np.float32)]
        return release(sanitize_messages, zeros, _event(1, "sample", 1.0, 1.0))[0].tobytes()

    before = [_in_fork(draw), _in_fork(draw)] if hasattr(os, "fork") else [draw()]
    drawn = [*before, draw()]
    equal = sum(first == second for first, second in combinations(drawn, 2))
    return f"{equal} equal pairs among {len(drawn)} releases", "none", equal > 0


def _in_fork(draw: Callable[[], bytes]) -> bytes:
    """Return what ``draw`` returns in a copy of this process; fits into a pipe's buffer."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sink, draw())
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as answer:
        drawn = answer.read()
    os.waitpid(child, 0)
    return drawn


CHECKS: dict[str, Check] = {
    "clip: norm within the bound": _clipped_norm,
    "noise: variance": _variance,
    "noise: messages are independent": _independent(lambda noise: noise.reshape(MESSAGES, -1)),
    "noise: rows are independent": _independent(
        lambda noise: noise.swapaxes(0, 1).reshape(ROWS, -1)
    ),
    "noise: pixels are independent": _independent(_shifted),
    "noise: differs between processes": _processes,
}


def run_check(title: str, sanitize_messages: SanitizeMessages, false_alarm: float) -> CheckResult:
    """Run one of ``CHECKS``; a faulty release fails it."""
    try:
        found, rule, refuted = CHECKS[title](sanitize_messages, false_alarm)
    except FaultyRelease as fault:
        found, rule, refuted = str(fault), "an answer", True
    return CheckResult(title=title, found=found, rule=rule, refuted=refuted)

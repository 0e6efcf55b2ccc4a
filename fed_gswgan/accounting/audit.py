"""Audit of a sanitizer: an attempt to refute its claimed privacy.

It refutes or it does not; it proves nothing. It looks at what is released, not at how long that
took.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations, product

import numpy as np
from scipy.special import betainccinv, ndtri

from fed_gswgan.accounting.audit_cases import (
    FaultyRelease,
    Messages,
    SanitizeMessages,
    WorstCase,
    clipped,
    release,
    released_step,
    worst_cases,
)
from fed_gswgan.accounting.audit_law import TESTS, Found, Sample, Test, whole_law
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import (
    Bounded,
    Event,
    NeighboringRelation,
    grid_step,
    noise_deviation,
    privatize,
)
from fed_gswgan.privacy.noise import NoiseSource
from fed_gswgan.privacy.policy import Trust
from fed_gswgan.validation import at_least, between

Claim = Callable[[Event, NeighboringRelation], float]
TRUSTS: tuple[Trust, ...] = ("local", "secure-aggregation", "central")
CLIPPINGS: tuple[Bounded, ...] = ("sample", "message")
CONFIDENCE = 1 - 1e-6
DRAWS = 2**23  # of noise, unless the caller says otherwise


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
        draws: of noise, at least.
        confidence: with which a sound sanitizer passes all cases and checks together.
        delta: at which epsilon is read.
        checks: those of clip and noise.
        cases: those of worst cases, as far as the audit went.
    """

    repeats: int
    draws: int
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
    """Return the sanitizer that clients run, as an audit calls it.

    Under central trust the server's noise comes after it, to the sum of one client.
    """

    def sanitize(message: np.ndarray, event: Event) -> np.ndarray:
        sized = replace(event, numbers=message[0].size)
        steps = privatize(message.reshape(len(message), -1), np.empty(0), sized, noise_source)
        values = steps * grid_step(sized)
        if event.trust == "central":  # the release is the server's sum
            values = noise_source.add_noise(values, noise_deviation(sized))
        return np.asarray(values, np.float32).reshape(message.shape)

    return lambda messages, event: [sanitize(message, event) for message in messages]


def audit(
    sanitize_messages: SanitizeMessages,
    *,
    repeats: int,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    delta: float = 1e-5,
    until_refuted: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Try to refute that ``sanitize_messages`` is as private as its events say.

    Args:
        sanitize_messages: the sanitizer.
        repeats: releases in each world of a case; half of them choose a threshold. Several
            hundred find half the noise; several thousand, noise that is a quarter too small.
        draws: of noise, which is compared with its law; a repetition that comes later is not seen.
        confidence: with which a sound sanitizer passes everything. Checks and cases share the
            rest equally (Bonferroni), so it holds for the audit as a whole.
        delta: at which epsilon is reported; no verdict depends on it.
        until_refuted: stop at the first violation.
        on_progress: called with the number of checks and cases done and that of all.
    """
    at_least(2, repeats=repeats)
    at_least(1, draws=draws)
    between(0, 1, confidence=confidence)
    between(0, 1, delta=delta)
    cases, subject = worst_cases(), Subject(sanitize_messages, draws)
    attempts = len(CHECKS) + len(cases)
    false_alarm = (1 - confidence) / attempts
    checks: list[CheckResult] = []
    results: list[CaseResult] = []

    def tried() -> Iterator[CheckResult | CaseResult]:
        for title in CHECKS:
            checks.append(run_check(title, subject, false_alarm))
            yield checks[-1]
        for case in cases:
            results.append(try_case(case, sanitize_messages, repeats, false_alarm, delta))
            yield results[-1]

    for done, result in enumerate(tried(), 1):
        on_progress(done, attempts)
        if until_refuted and result.refuted:
            break
    return AuditReport(
        repeats=repeats,
        draws=draws,
        confidence=confidence,
        delta=delta,
        checks=tuple(checks),
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
#    it was violated.

MESSAGE_SHAPE = 1024, 1, 16, 16  # of noise alone: far more rows than a policy allows by default
MESSAGE_SIZE = math.prod(MESSAGE_SHAPE)
DATA_SHAPE, DATA_MESSAGES = (257, 1, 4, 4), 64
CLIP_ROWS, MOST_ROWS = 8, 2**16 + 1
LONGEST = 1.000001  # times the bound, for float32 and the noise
LENGTHS = (0.0, 1e-40, 0.9, 1.1, 1e2, 1e6, 1e30, math.nan, math.inf)
# So little that a norm is seen through it, and no less than each grid allows.
LITTLE_NOISE = {"local": 2e-9, "secure-aggregation": 2e-8, "central": 2e-9}
USUAL_NOISE = {"local": 2.14, "secure-aggregation": 0.0757, "central": 2.14}  # of 800 honest ones
MOST_STEPS = 2.0**60
PROCESSES = "noise: differs between processes"


@dataclass(eq=False)
class Subject:
    """A sanitizer under audit, and its noise, which is drawn once for all checks.

    Attributes:
        sanitize_messages: the sanitizer.
        draws: of noise alone, at least.
    """

    sanitize_messages: SanitizeMessages
    draws: int = DRAWS

    @cached_property
    def noise(self) -> Sample:
        """Releases of zeros; every second message is sanitized together with the one before."""
        event = _event(MESSAGE_SHAPE[0], "sample", bound=4.0)
        zeros = [np.zeros(MESSAGE_SHAPE, np.float32)] * 2
        calls = -(-self.draws // (2 * MESSAGE_SIZE))
        return self.sample(zeros, event, calls)

    def sample(self, messages: Messages | list[np.ndarray], event: Event, calls: int) -> Sample:
        """Sanitize equal messages together, so many times, and return what came out."""
        step, shape = released_step(event), (len(messages[0]), -1)
        released = [
            np.clip(values / step, -MOST_STEPS, MOST_STEPS).reshape(shape)
            for _ in range(calls)
            for values in release(self.sanitize_messages, messages, event)
        ]
        return Sample(
            steps_MRN=np.array(released),
            centers_RN=clipped(messages[:1], event).reshape(shape) / step,
            deviation=event.noise_stddev * event.clipping_bound / step,
        )


Check = Callable[[Subject, float], Found]


def _event(
    rows: int,
    clipping: Bounded,
    bound: float,
    noise: float | None = None,
    trust: Trust = "local",
) -> Event:
    return Event(
        rows=rows,
        numbers=1,
        bounded=clipping,
        clipping_bound=bound,
        noise_stddev=USUAL_NOISE[trust] if noise is None else noise,
        trust=trust,
        honest=800 if trust == "secure-aggregation" else 1,
    )


def _clipped_norm(subject: Subject, _: float) -> Found:
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
    # As long as a policy may allow, and rows as wide.
    large = {
        f"{MOST_ROWS:,} rows": np.ones((MOST_ROWS, 1, 2, 2)),
        f"a row of {MOST_ROWS:,} numbers": np.ones((1, 1, 1, MOST_ROWS)),
    }
    tries = [*product((0.25, 4.0), LENGTHS, shapes.items())]
    tries += [*product((4.0,), (0.9, 1e6), large.items())]
    longest, of = 0.0, ""
    for trust, clipping, (bound, length, (name, shape)) in product(TRUSTS, CLIPPINGS, tries):
        with np.errstate(invalid="ignore"):  # infinity times zero
            gradients = (shape * length * bound).astype(np.float32)
        event = _event(len(shape), clipping, bound, LITTLE_NOISE[trust], trust)
        (values,) = release(subject.sanitize_messages, [gradients], event)
        parts = values.astype(np.float64).reshape(len(shape) if clipping == "sample" else 1, -1)
        norm = float(np.linalg.norm(parts, axis=1).max()) / bound
        if norm > longest:
            longest, of = norm, f"{name} of length {length:g}, clipping {clipping}, trust {trust}"
    return f"{longest:.7g} times the bound ({of})", f"at most {LONGEST}", longest > LONGEST


def _of_noise(test: Test) -> Check:
    return lambda subject, false_alarm: test(subject.noise, false_alarm)


def _beside_data(trust: Trust, clipping: Bounded) -> Check:
    """Return a check of the whole law of releases whose data is known."""

    def check(subject: Subject, false_alarm: float) -> Found:
        event = _event(DATA_SHAPE[0], clipping, 4.0, trust=trust)
        gradients = _directions() * np.float32(3 * event.clipping_bound)
        if clipping == "sample":
            lengths = (0.0, 1e-40, 1e-3, 0.3, 0.999, 1.1, 1e2, 1e6, 1e30, math.inf, math.nan)
            lengths_R = np.resize(np.array(lengths, np.float32), len(gradients))
            gradients = _directions() * (lengths_R * event.clipping_bound).reshape(-1, 1, 1, 1)
        return whole_law(subject.sample([gradients], event, DATA_MESSAGES), false_alarm)

    return check


def _beside_fractions(subject: Subject, false_alarm: float) -> Found:
    """Check the whole law where a deviation is one step, and data lies between two of them."""
    event = _event(DATA_SHAPE[0], "sample", 4.0, LITTLE_NOISE["local"])
    places = np.resize(np.arange(-40, 41) * 0.37, math.prod(DATA_SHAPE)).reshape(DATA_SHAPE)
    gradients = (places * released_step(event)).astype(np.float32)
    return whole_law(subject.sample([gradients], event, DATA_MESSAGES), false_alarm)


def _directions() -> np.ndarray:
    """Return rows of length 1 that are the same in every audit."""
    rows = np.random.Generator(np.random.Philox(key=1)).standard_normal(DATA_SHAPE)
    rows /= np.sqrt(np.square(rows).sum(axis=(1, 2, 3), keepdims=True))
    return rows.astype(np.float32)


def _processes(subject: Subject, _: float) -> Found:
    """Release a zero gradient from two forks of this process and from itself, and compare.

    Noise that comes twice is a seed's, or from a buffer that was copied. Where a system cannot
    fork, two releases of this process are compared.
    """

    def draw() -> bytes:
        zeros = [np.zeros((1, 1, 28, 28), np.float32)]
        event = _event(1, "sample", 1.0, 1.0)
        return release(subject.sanitize_messages, zeros, event)[0].tobytes()

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
    PROCESSES: _processes,
    **{
        f"law beside data: {trust}, {clipping}": _beside_data(trust, clipping)
        for trust, clipping in product(TRUSTS, CLIPPINGS)
    },
    "law beside data: a deviation is one step": _beside_fractions,
    **{f"noise: {name}": _of_noise(test) for name, test in TESTS.items()},
}


def run_check(title: str, subject: Subject, false_alarm: float) -> CheckResult:
    """Run one of ``CHECKS``; a faulty release fails it."""
    return checked(title, lambda: CHECKS[title](subject, false_alarm))


def checked(title: str, check: Callable[[], Found]) -> CheckResult:
    """Return the result of a check; a faulty release fails it."""
    try:
        found, rule, refuted = check()
    except FaultyRelease as fault:
        found, rule, refuted = str(fault), "an answer", True
    return CheckResult(title=title, found=found, rule=rule, refuted=refuted)

"""The audit: every check and every worst case against one sanitizer.

It refutes or it does not; it proves nothing. It looks at what is released, not at how long that
took.
"""

import math
from collections.abc import Callable

import numpy as np

from fed_gswgan.privacy.audit.checks import CHECKS, run_check
from fed_gswgan.privacy.audit.mu_lower_bound import mu_lower_bound
from fed_gswgan.privacy.audit.release import FaultyRelease, SanitizeMessages, release
from fed_gswgan.privacy.audit.report import AuditReport, CaseResult
from fed_gswgan.privacy.audit.worst_cases import Messages, WorstCase, worst_cases
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.noise_source import NoiseSource
from fed_gswgan.privacy.sanitizer import sanitize
from fed_gswgan.validation import at_least, between

Claim = Callable[[SanitizedGradientEvent, NeighboringRelation], float]


def shipped(noise_source: NoiseSource) -> SanitizeMessages:
    """Return the sanitizer that clients run, as an audit calls it."""
    return lambda messages, event: [
        sanitize(message, event, noise_source).values_BCHW for message in messages
    ]


def audit(
    sanitize_messages: SanitizeMessages,
    *,
    repeats: int,
    confidence: float = 0.999,
    delta: float = 1e-5,
    claimed_mu: Claim = SanitizedGradientEvent.mu,
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
        claimed_mu: the accounting under audit, of one message.
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
        result = try_case(case, sanitize_messages, repeats, false_alarm, delta, claimed_mu)
        results.append(result)
        on_progress(len(results), len(cases))
        stop = until_refuted and result.refuted
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
    claimed_mu: Claim = SanitizedGradientEvent.mu,
) -> CaseResult:
    """Release both worlds of a case ``repeats`` times and bound mu from below."""
    present, fault = _scores(case, case.present, sanitize_messages, repeats)
    changed, other_fault = _scores(case, case.changed, sanitize_messages, repeats)
    bound = mu_lower_bound(present, changed, false_alarm)
    return CaseResult(
        title=case.title,
        name=case.name,
        relation=str(case.relation),
        clipping=case.event.clipping,
        samples=case.event.samples,
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

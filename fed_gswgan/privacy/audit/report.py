"""What an audit found, as data."""

from dataclasses import dataclass


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

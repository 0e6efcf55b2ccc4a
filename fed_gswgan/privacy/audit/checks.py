"""The checks that need no pair of worlds, by title."""

from collections.abc import Callable

from fed_gswgan.privacy.audit import noise_checks
from fed_gswgan.privacy.audit.clip_check import clipped_norm
from fed_gswgan.privacy.audit.process_check import processes
from fed_gswgan.privacy.audit.release import FaultyRelease, SanitizeMessages
from fed_gswgan.privacy.audit.report import CheckResult

# Each takes its title, the sanitizer, and the probability with which a sound one may fail.
CHECKS: dict[str, Callable[[str, SanitizeMessages, float], CheckResult]] = {
    "clip: norm within the bound": clipped_norm,
    "noise: variance": noise_checks.variance,
    "noise: messages are independent": noise_checks.messages,
    "noise: rows are independent": noise_checks.rows,
    "noise: pixels are independent": noise_checks.pixels,
    "noise: differs between processes": processes,
}


def run_check(title: str, sanitize_messages: SanitizeMessages, false_alarm: float) -> CheckResult:
    """Run one of ``CHECKS``; a faulty release fails it."""
    try:
        return CHECKS[title](title, sanitize_messages, false_alarm)
    except FaultyRelease as fault:
        return CheckResult(title=title, found=str(fault), rule="an answer", refuted=True)

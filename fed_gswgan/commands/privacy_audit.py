"""``fed-gswgan privacy audit``: an attempt to refute what the sanitizer on this machine claims."""

import argparse
import sys
import textwrap
from dataclasses import asdict
from typing import Any

REPEATS = 4000
WORTH = (
    "An audit can only refute: a violation is real, but for one sound sanitizer in a thousand. "
    "Its absence proves nothing; it says that these cases, repeated so often, did not tell two "
    "neighbouring worlds apart better than the claim allows."
)


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    audit = commands.add_parser(
        "audit", help="attack the sanitizer of this machine with worst cases; about a minute"
    )
    audit.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        metavar="N",
        help=f"releases in each world of a case; more find smaller defects; default {REPEATS}",
    )
    audit.add_argument("--json", action="store_true")
    audit.set_defaults(
        command=privacy_audit, render=_table, verdict=lambda result: not result["violations"]
    )


def privacy_audit(options: argparse.Namespace) -> dict[str, Any]:
    """Return every check and every worst case, and the titles of those that were violated."""
    from rich.console import Console
    from rich.progress import Progress

    from fed_gswgan.privacy.audit.audit import audit, shipped
    from fed_gswgan.privacy.noise_source import SecureNoise

    # No refreshing thread: the audit forks.
    with Progress(
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("worst cases", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, refresh=True)

        report = audit(shipped(SecureNoise()), repeats=options.repeats, on_progress=show)
    return {
        "sanitizer": "fed_gswgan.privacy.sanitizer.sanitize, secure noise",
        **asdict(report),
        "violations": list(report.violations),
        "worth": WORTH,
    }


def _table(found: dict[str, Any]) -> str:
    lines = [
        f"Audit of {found['sanitizer']}: {found['repeats']} releases in each of two worlds, "
        f"confidence {found['confidence']:.1%} for all together",
        "",
    ]
    violations = set(found["violations"])
    for check in found["checks"]:
        verdict = _verdict(check["title"], violations)
        lines.append(f"{verdict:9}  {check['title']}: {check['found']}; allowed: {check['rule']}")
    lines += [
        "",
        "mu that is claimed, and the least it can be by what was seen; the latter read as epsilon "
        f"at delta {found['delta']:g}:",
        "",
        f"{'verdict':9}  {'claimed':>7}  {'least':>6}  {'epsilon':>7}  worst case",
    ]
    for case in found["cases"]:
        numbers = (
            f"{case['claimed_mu']:7.3f}  {case['mu_lower_bound']:6.3f}  "
            f"{case['epsilon_lower_bound']:7.2f}"
        )
        fault = f": {case['fault']}" if case["fault"] else ""
        lines.append(f"{_verdict(case['title'], violations):9}  {numbers}  {case['title']}{fault}")
    count = len(found["checks"]) + len(found["cases"])
    verdict = f"{len(violations)} violations in {count} attempts."
    return "\n".join([*lines, "", verdict, *textwrap.wrap(found["worth"], 100)])


def _verdict(title: str, violations: set[str]) -> str:
    return "VIOLATION" if title in violations else "ok"

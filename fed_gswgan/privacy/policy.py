"""What a device allows, whoever asks: limits that a request can only stay within."""

import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

from fed_gswgan.flat_table import from_table, to_table
from fed_gswgan.privacy.events import (
    CLIPPING_BOUNDS,
    CLIPPINGS,
    NOISE_STDDEVS,
    SanitizedGradientEvent,
)
from fed_gswgan.privacy.refusals import RequestExceedsPolicy
from fed_gswgan.privacy_config import BudgetConfig
from fed_gswgan.validation import at_least, between, non_negative, one_of


@dataclass(frozen=True, kw_only=True)
class DevicePolicy(BudgetConfig):
    """The owner's limits on one device; on a simulated one they are the run's settings.

    The budget (``max_epsilon`` at ``delta`` under ``neighboring_relation``, and
    ``max_participations``) is that of each user's whole life: every run of every server counts.

    Attributes:
        max_samples: rows of a reply.
        max_critic_batches: further batches for the critic's steps, a bound on work alone.
        clipping: ``message`` allows that alone; ``sample``, the looser, allows both.
        max_clipping_bound: the largest C that may be asked for.
        min_noise_stddev: the smallest noise on one coordinate, in units of the C asked for.
        min_separation_rounds: rounds from one answer to the next in one experiment; 0: none.
        min_separation_seconds: time from one answer to the next, of any experiment; 0: none.
        trusted_server: whether a reply may leave without noise, for the server to add it to the sum
            of all replies; against that server there is then no protection at all.
        lost_replies: what happens to a request that was answered, and whose bytes are not kept
            any more: ``charge`` answers anew at a new charge, ``refuse`` does not.
    """

    max_samples: int = 32
    max_critic_batches: int = 0
    clipping: str = "sample"
    max_clipping_bound: float = 1.0
    min_noise_stddev: float = 2.14
    min_separation_rounds: int = 0
    min_separation_seconds: float = 0.0
    lost_replies: str = "charge"
    trusted_server: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, max_samples=self.max_samples)
        at_least(0, max_critic_batches=self.max_critic_batches)
        one_of(CLIPPINGS, clipping=self.clipping)
        between(*CLIPPING_BOUNDS, max_clipping_bound=self.max_clipping_bound)
        between(*NOISE_STDDEVS, min_noise_stddev=self.min_noise_stddev)
        at_least(0, min_separation_rounds=self.min_separation_rounds)
        non_negative(min_separation_seconds=self.min_separation_seconds)
        one_of(("charge", "refuse"), lost_replies=self.lost_replies)

    def admit(self, event: SanitizedGradientEvent) -> None:
        """Refuse a release that asks for more than this policy allows.

        Less is always fine: fewer rows, a smaller bound, more noise (it is relative to the bound),
        a reply clipped as a whole.

        Raises:
            RequestExceedsPolicy: naming the field, the value and the limit.
        """
        if event.samples > self.max_samples:
            raise RequestExceedsPolicy(f"samples={event.samples} must be <= {self.max_samples}")
        if event.clipping == "sample" and self.clipping == "message":
            raise RequestExceedsPolicy("clipping=sample must be message")
        if event.clipping_bound > self.max_clipping_bound:
            raise RequestExceedsPolicy(
                f"clipping-bound={event.clipping_bound} must be <= {self.max_clipping_bound}"
            )
        if event.noise_added_by == "server" and not self.trusted_server:
            raise RequestExceedsPolicy(
                "noise-added-by=server must be device: trusted-server is false here"
            )
        if event.noise_stddev < self.min_noise_stddev:
            raise RequestExceedsPolicy(
                f"noise-stddev={event.noise_stddev} must be >= {self.min_noise_stddev}"
            )

    def hash(self) -> str:
        """Return a hash of every limit, which each reservation is written down with."""
        table = json.dumps(to_table(self), sort_keys=True)
        return hashlib.sha256(table.encode()).hexdigest()[:16]


def read_policy(path: Path) -> DevicePolicy:
    """Read a policy file: TOML, one limit a line, its name in kebab-case.

    ``max-epsilon`` must be there: an owner's file that forgets the budget is no policy.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no TOML, a limit is unknown, missing, of another type or out of range.
    """
    table = tomllib.loads(path.read_text())
    known = to_table(DevicePolicy())
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{path.name}: {key}={value!r}: no such limit; known: {list(known)}")
    policy = from_table(DevicePolicy, table)
    if math.isinf(policy.max_epsilon):
        raise ValueError(f"{path.name}: max-epsilon must be given, and finite")
    return policy

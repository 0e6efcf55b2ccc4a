"""Policy of a device: its owner's limits, which a request can only stay within."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from fed_gswgan.privacy.gaussian import gaussian_mu
from fed_gswgan.privacy.mechanism import (
    CLIPPING_BOUNDS,
    NOISE_STDDEVS,
    Event,
    NeighboringRelation,
    compose,
    seen_alone,
)
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    RequestExceedsPolicy,
    TooManyParticipations,
)
from fed_gswgan.settings import Settings, kebab, read_toml

TRUSTS = ("local", "secure-aggregation", "central")
Epsilon = Annotated[float, Field(gt=0)]
Trust = Literal["local", "secure-aggregation", "central"]


class Budget(Settings):
    """What a user may spend, over all servers and runs.

    Attributes:
        neighboring_relation: ``replace-one`` or ``zero-out``.
        delta: of epsilon, in (0, 1).
        max_epsilon: a user past it answers no more.
        max_participations: replies of a user; 0: no limit.
    """

    neighboring_relation: Literal["replace-one", "zero-out"] = "replace-one"
    """or zero-out"""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """of epsilon; below one over the number of users"""
    max_epsilon: Epsilon = math.inf
    """a user past it answers no more; inf: no limit"""
    max_participations: Annotated[int, Field(ge=0)] = 0
    """releases of a user, over all runs with its ledger; 0: no limit"""

    def admit_spending(self, spent: Mapping[Event, int], event: Event) -> None:
        """Refuse a release that would take a user who spent so much past the budget.

        Raises:
            TooManyParticipations, BudgetExhausted: naming the limit.
        """
        limit = f"max-participations={self.max_participations}"
        if 0 < self.max_participations <= sum(spent.values()):
            raise TooManyParticipations(f"{limit} is reached", limit)
        self._require_within("max_epsilon", self.max_mu, _with_one_more(spent, event))

    @property
    def max_mu(self) -> float:
        """Mu of ``max_epsilon`` at ``delta``."""
        return _mu(self.max_epsilon, self.delta)

    def _require_within(self, name: str, mu: float, releases: Mapping[Event, int]) -> None:
        """Refuse releases beyond a mu; the limit is named by the field that it follows from."""
        if compose(releases, NeighboringRelation(self.neighboring_relation)) > mu:
            limit = f"{kebab(name)}={getattr(self, name):g}"
            raise BudgetExhausted(f"{limit} at delta={self.delta:g} would be passed", limit)


class Policy(Budget):
    """The owner's limits on one device; on a simulated one they are the run's settings.

    Attributes:
        max_epsilon: finite in an owner's file.
        trust: trust models that the owner accepts.
        max_rows: rows of a release in which each is bounded; where the whole is, rows cost nothing.
        clipping: ``message`` allows that alone; ``sample``, the looser, allows both.
        max_clipping_bound: the largest C.
        min_noise_stddev: the smallest noise on one coordinate, in units of C; under secure
            aggregation of the sum's noise.
        central_noise_stddev: the noise that the owner believes a trusted server adds to a sum, in
            units of C; it is charged, whatever the server says. 0: ``central`` is refused.
        min_honest: the smallest H under secure aggregation.
        max_colluding: people of the roster who may help the server.
        max_epsilon_alone: of a user if the server saw each release by itself, as where the belief
            in honest peers fails; bounded beside ``max_epsilon`` under secure aggregation.
        answer_seconds: after so long an answer leaves that data was read for, so that the time
            tells nothing of how much there is; at the next multiple if it took longer.
        min_separation_rounds: rounds from one answer to the next in one experiment; 0: none. The
            server numbers the rounds: only the time binds one that is dishonest.
        min_separation_seconds: time from one answer to the next, of any experiment; 0: none. It
            passes while the machine runs or sleeps, whatever the wall clock shows, and begins anew
            when the guard starts after the machine was off.
        lost_replies: what happens to a request whose reply is not kept any more: ``charge``
            answers anew at a new charge, ``refuse`` does not.
        counter: absolute path of a program that keeps a counter which only rises
            (``fed_gswgan/privacy/counter.py``), asked before and after each charge: a ledger that
            was rolled back to an older copy is refused. Empty: none.
    """

    max_epsilon: Epsilon = 10.0
    max_participations: Annotated[int, Field(ge=0)] = 100_000
    trust: tuple[Trust, ...] = ("local",)
    max_rows: Annotated[int, Field(ge=1)] = 32
    clipping: Literal["sample", "message"] = "sample"
    max_clipping_bound: Annotated[float, Field(gt=CLIPPING_BOUNDS[0], lt=CLIPPING_BOUNDS[1])] = 1.0
    min_noise_stddev: Annotated[float, Field(gt=NOISE_STDDEVS[0], lt=NOISE_STDDEVS[1])] = 2.14
    central_noise_stddev: Annotated[float, Field(ge=0, lt=NOISE_STDDEVS[1])] = 0.0
    min_honest: Annotated[int, Field(ge=1)] = 2
    max_colluding: Annotated[int, Field(ge=0)] = 0
    max_epsilon_alone: Epsilon = math.inf
    answer_seconds: Annotated[float, Field(ge=0, le=600)] = 1.0
    min_separation_rounds: Annotated[int, Field(ge=0)] = 0
    min_separation_seconds: Annotated[float, Field(ge=0, lt=math.inf)] = 0.0
    lost_replies: Literal["charge", "refuse"] = "charge"
    counter: str = ""

    @field_validator("counter")
    @classmethod
    def _absolute(cls, counter: str) -> str:
        if counter and not Path(counter).is_absolute():
            raise ValueError("must be the absolute path of a program")
        return counter

    @field_validator("trust")
    @classmethod
    def _distinct(cls, trust: tuple[str, ...]) -> tuple[str, ...]:
        if not trust or len(set(trust)) < len(trust):
            raise ValueError(f"must name trust models once each: {', '.join(TRUSTS)}")
        return trust

    def admit_spending(self, spent: Mapping[Event, int], event: Event) -> None:
        """Refuse as ``Budget`` does, and what would pass ``max_epsilon_alone``."""
        super().admit_spending(spent, event)
        alone = seen_alone(_with_one_more(spent, event))
        self._require_within("max_epsilon_alone", self.max_mu_alone, alone)

    @property
    def max_mu_alone(self) -> float:
        """Mu of ``max_epsilon_alone`` at ``delta``."""
        return _mu(self.max_epsilon_alone, self.delta)

    def charge(self, event: Event) -> Event:
        """Return what a release costs, if this policy allows it.

        Less is always allowed: fewer rows, a smaller bound, more noise (it is relative to the
        bound), a release that is clipped as a whole. Under central trust the noise is the owner's.

        Raises:
            RequestExceedsPolicy: naming the field, the value and the limit.
        """
        if event.trust not in self.trust:
            raise RequestExceedsPolicy(
                f"trust={event.trust} must be one of {', '.join(self.trust)}"
            )
        if event.bounded == "sample" and event.rows > self.max_rows:
            raise RequestExceedsPolicy(f"rows={event.rows} must be <= max-rows={self.max_rows}")
        if event.bounded == "sample" and self.clipping == "message":
            raise RequestExceedsPolicy("clipping=sample must be message")
        _at_most("clipping-bound", event.clipping_bound, self.max_clipping_bound)
        if event.trust == "central":
            if not self.central_noise_stddev:
                raise RequestExceedsPolicy("trust=central needs the owner's central-noise-stddev")
            return replace(event, noise_stddev=self.central_noise_stddev)
        if event.trust == "secure-aggregation" and event.honest < self.min_honest:
            raise RequestExceedsPolicy(
                f"honest={event.honest} must be >= min-honest={self.min_honest}"
            )
        noise = event.noise_stddev * math.sqrt(event.honest)
        if noise < self.min_noise_stddev * (1 - 1e-12):
            raise RequestExceedsPolicy(
                f"noise-stddev={noise:g} must be >= min-noise-stddev={self.min_noise_stddev:g}"
            )
        return event

    def hash(self) -> str:
        """Return a hash of every limit, which each ledger line is written with."""
        return _hash(self)


def _with_one_more(spent: Mapping[Event, int], event: Event) -> dict[Event, int]:
    """Return releases and one more of an event."""
    return {**spent, event: spent.get(event, 0) + 1}


def read_policy(path: Path) -> Policy:
    """Read a policy file: TOML, one limit a line, its name in kebab-case.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no TOML, a limit is unknown, missing, of another type or out of range.
    """
    table = read_toml(path)
    policy = Policy.from_table(table, f"{path.name}: ")
    if "max-epsilon" not in table or math.isinf(policy.max_epsilon):
        raise ValueError(f"{path.name}: max-epsilon must be given, and finite")
    if "secure-aggregation" in policy.trust:
        wanted = ("min-honest", "max-colluding", "max-epsilon-alone")
        if missing := [name for name in wanted if name not in table]:
            raise ValueError(
                f"{path.name}: {', '.join(missing)} must be given where trust has "
                "secure-aggregation: they say whom you believe"
            )
        if math.isinf(policy.max_epsilon_alone):
            raise ValueError(f"{path.name}: max-epsilon-alone must be finite")
    return policy


def _at_most(name: str, value: float, limit: float) -> None:
    if value > limit:
        raise RequestExceedsPolicy(f"{name}={value:g} must be <= {kebab('max_' + name)}={limit:g}")


@lru_cache(maxsize=64)
def _hash(policy: Policy) -> str:
    table = json.dumps(policy.to_table(), sort_keys=True)
    return hashlib.sha256(table.encode()).hexdigest()[:16]


@lru_cache(maxsize=64)
def _mu(epsilon: float, delta: float) -> float:
    return gaussian_mu(epsilon, delta)

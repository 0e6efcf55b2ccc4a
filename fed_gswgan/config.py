"""Settings of a run: the shared keys, and those of its algorithm, in one flat kebab-case table.

Every field is one key of Flower's run config, of a TOML file and of ``--set``: ``cohort_size`` here
is ``cohort-size`` there. ``fed_gswgan.config`` run as a module writes the table
``[tool.flwr.app.config]`` of ``pyproject.toml`` from these classes.
"""

import math
import tomllib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from fed_gswgan.algorithms.base import (
    Algorithm,
    Client,
    ReleaseShape,
    algorithm_names,
    find_algorithm,
)
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.data.registry import DataSettings
from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_mu
from fed_gswgan.privacy.mechanism import (
    CLIPPING_BOUNDS,
    NOISE_STDDEVS,
    Event,
    NeighboringRelation,
    grid_step,
)
from fed_gswgan.privacy.policy import Budget, Policy
from fed_gswgan.settings import (
    Count,
    Positive,
    Settings,
    Value,
    Whole,
    check_keys,
    kebab,
    toml_value,
)

DEFAULT_EPSILON = 10.0


class CohortSettings(Settings):
    """Who is asked in a round, and how long the server waits."""

    cohort_size: Count = 14
    """clients a round; the mean number under poisson"""
    sampling_method: Literal["fixed-size", "poisson"] = "fixed-size"
    """or poisson"""
    min_replies: Count = 1
    """fewer: no step in this round"""
    reply_timeout_seconds: Positive = 600.0


class PrivacySettings(Budget):
    """What is done to an update before it leaves, and when a client refuses."""

    trust: Literal["local", "secure-aggregation", "central"] = "local"
    """secure-aggregation: the server sees sums; central: it adds the noise and is trusted"""
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """of every user after all rounds, at delta: the noise follows; 0: noise-stddev says"""
    noise_stddev: Annotated[float, Field(ge=0, lt=NOISE_STDDEVS[1])] = 0.0
    """of one coordinate of a release, in units of the bound (of the sum, but under local trust);
    0: epsilon says; both 0: epsilon is 10"""
    clipping_bound: Annotated[float, Field(gt=CLIPPING_BOUNDS[0], lt=CLIPPING_BOUNDS[1])] = 1.0
    """C, an L2 norm"""
    secure_aggregation: Literal["ideal", "protocol"] = "ideal"
    """ideal: the server is given each sum, in simulations alone; protocol: it cannot see more"""
    honest_share: Annotated[float, Field(gt=0, le=1)] = 0.65
    """of a cohort, whose noise is counted under secure aggregation"""
    colluding_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """of a cohort, who may help the server (secure-aggregation protocol)"""
    spare_rounds: Whole = 0
    """rounds that may fail and be asked anew, which epsilon is calibrated for as well"""
    noise_source: Literal["secure", "seeded"] = "secure"
    """secure, or seeded: reproducible, protects nobody"""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.epsilon and self.noise_stddev:
            raise ValueError(
                f"epsilon={self.epsilon:g} and noise-stddev={self.noise_stddev:g} cannot both be "
                "given: each decides the noise; set one of them to 0"
            )
        if 0 < self.noise_stddev <= NOISE_STDDEVS[0]:
            raise ValueError(f"noise-stddev={self.noise_stddev:g} must be > {NOISE_STDDEVS[0]:g}")
        return self


class RunSettings(Settings):
    """How long, from which seed, and what is written down."""

    rounds: Count = 240
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    output_dir: str = ""
    """empty: runs/<dataset>-<time>"""
    resume: bool = False
    """go on with the run in output-dir"""
    checkpoint_every: Count = 1
    """rounds"""
    samples_every: Count = 20
    """rounds between pictures"""
    evaluation_samples: Whole = 4000
    """generated for the metrics; 0: no metrics"""
    evaluate_every: Whole = 0
    """rounds between metrics on held-out images; 0: at the end alone"""
    evaluation_references: bool = True
    """measure the prior alone, and clients' real images in simulations (not private), as well"""
    uplink_bits: Literal[32, 16, 8, 4, 2, 1] = 32
    """of each number of a release; after the noise"""
    downlink_bits: Literal[32, 16, 8, 4, 2, 1] = 32
    """of each pixel of a sample"""


class SharedSettings(DataSettings, CohortSettings, PrivacySettings, RunSettings):
    """Keys that every algorithm has."""

    algorithm: str = "gs-wgan"
    """or fedavg-gan, the baseline that averages critics; or package.module:Class"""
    algorithm_settings: str = ""
    """keys of a plug-in algorithm, as TOML"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sampling_method == "fixed-size" and self.min_replies > self.cohort_size:
            raise ValueError(
                f"min-replies={self.min_replies} must be <= cohort-size={self.cohort_size}, or no "
                "round ever makes a step"
            )
        if self.evaluation_samples == 1:
            raise ValueError("evaluation-samples=1 must be 0 or >= 2")
        if self.dataset == "devices" and not self.max_clients:
            raise ValueError(
                "max-clients=0 must be the number of devices to wait for, under dataset=devices"
            )
        if self.dataset == "devices" and self.evaluation_samples:
            raise ValueError(
                f"evaluation-samples={self.evaluation_samples} must be 0 under dataset=devices: "
                "the server has no image to compare with"
            )
        if self.trust == "secure-aggregation" and self.sampling_method != "fixed-size":
            raise ValueError(
                f"sampling-method={self.sampling_method} must be fixed-size under "
                "trust=secure-aggregation: every sum needs its number of honest clients"
            )
        if self.masked and self.honest + self.colluding > self.cohort_size:
            raise ValueError(
                f"honest-share={self.honest_share:g} and colluding-share={self.colluding_share:g} "
                "must be at most 1 together"
            )
        if self.masked and self.checkpoint_every != 1:
            raise ValueError(
                f"checkpoint-every={self.checkpoint_every} must be 1 under "
                "secure-aggregation=protocol: no round is asked again"
            )
        if self.trust == "secure-aggregation" and self.honest < 2:
            raise ValueError(
                f"honest-share={self.honest_share:g} of cohort-size={self.cohort_size} must be >= "
                "2 clients: the noise of one is local trust"
            )
        return self

    @property
    def honest(self) -> int:
        """H, clients of a cohort whose noise is counted."""
        return self._of_cohort(self.honest_share)

    @property
    def masked(self) -> bool:
        """Whether clients mask their releases, so that the server can see nothing but a sum."""
        return self.trust == "secure-aggregation" and self.secure_aggregation == "protocol"

    @property
    def colluding(self) -> int:
        """Clients of a cohort that may help the server."""
        return self._of_cohort(self.colluding_share)

    def _of_cohort(self, share: float) -> int:
        return math.floor(share * self.cohort_size + 1e-9)

    @property
    def mean_noise(self) -> float:
        """Standard deviation of one coordinate of a full cohort's mean, in units of the bound."""
        noise = self.noise_stddev / self.cohort_size
        if self.trust == "local":
            return noise * math.sqrt(self.cohort_size)
        if self.trust == "secure-aggregation":
            return noise * math.sqrt(self.cohort_size / self.honest)
        return noise


@dataclass(frozen=True)
class Config:
    """One run: its shared settings, its algorithm, and the algorithm's own settings."""

    shared: SharedSettings
    algorithm: Algorithm
    own: Any

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Config":
        """Build from a flat kebab-case table; a missing key takes its default.

        Keys of another algorithm of this package are known and ignored, since Flower's run config
        holds all of them.

        Raises:
            ValueError: a key that nobody has, with the nearest known one; a value of the wrong type
                or out of range; settings that do not go together.
        """
        known = defaults()
        check_keys(table, known)
        algorithm = find_algorithm(str(table.get("algorithm", SharedSettings().algorithm)))
        shared_keys, own_keys = set(SharedSettings.keys()), set(algorithm.Settings.keys())
        if not shared_keys.isdisjoint(own_keys):
            raise ValueError(f"algorithm={table['algorithm']}: {shared_keys & own_keys} are shared")
        shared = SharedSettings.from_table({k: v for k, v in table.items() if k in shared_keys})
        own = {k: v for k, v in table.items() if k in own_keys}
        if ":" in shared.algorithm:
            own |= _plug_in_table(shared.algorithm_settings)
        elif shared.algorithm_settings:
            raise ValueError(
                f"algorithm-settings must be empty under algorithm={shared.algorithm}: its keys "
                "are settings themselves"
            )
        return cls(shared, algorithm, algorithm.Settings.from_table(own))

    def to_table(self) -> dict[str, Value]:
        """Return the flat table that builds these very settings."""
        own = {} if ":" in self.shared.algorithm else self.own.to_table()
        return {**self.shared.to_table(), **own}

    def with_noise(self, spec: DataSpec) -> "Config":
        """Return the same run with ``noise-stddev`` in place of ``epsilon``, calibrated.

        What an algorithm lets follow from the noise is set as well.

        A user takes part in at most ``max-participations`` rounds if that is set, else in all
        rounds and spare ones; ``max-epsilon`` becomes the target where it is larger. The noise is
        that of the release under local trust and of the sum elsewhere; sampling is not counted on.

        Raises:
            ValueError: no noise in range reaches the target, or the settings do not fit the images.
        """
        shared, shape = self.shared, self.release(spec)
        if shared.noise_stddev:
            return self._resolved(shared, spec)
        epsilon = shared.epsilon or DEFAULT_EPSILON
        participations = shared.rounds + shared.spare_rounds
        if shared.max_participations:
            participations = min(participations, shared.max_participations)
        one = self._event(shape, noise_stddev=1.0, honest=1)
        sensitivity = one.sensitivity(NeighboringRelation(shared.neighboring_relation))
        # A hair more than enough: the last round must not fail for want of a digit.
        noise = sensitivity * math.sqrt(participations) / gaussian_mu(epsilon, shared.delta)
        noise *= 1 + 1e-12
        if noise >= NOISE_STDDEVS[1]:
            raise ValueError(
                f"epsilon={epsilon:g} at delta={shared.delta:g} needs noise-stddev={noise:.3g}, "
                f"must be < {NOISE_STDDEVS[1]:g}; allow a larger epsilon or fewer rounds"
            )
        update = {"epsilon": 0.0, "noise_stddev": noise}
        update["max_epsilon"] = min(shared.max_epsilon, epsilon)
        return self._resolved(shared.model_copy(update=update), spec)

    def _resolved(self, shared: SharedSettings, spec: DataSpec) -> "Config":
        """Return the run whose noise is known, with what its algorithm lets follow from it."""
        resolve = getattr(self.algorithm, "resolved", None)
        own = self.own if resolve is None else resolve(self.own, spec, shared.mean_noise)
        found = Config(shared, self.algorithm, own)
        if shared.dataset == "devices" and found.release(spec) != self.release(spec):
            decided = {k: v for k, v in own.to_table().items() if v != self.own.to_table()[k]}
            words = ", ".join(f"{key}={value}" for key, value in decided.items())
            raise ValueError(
                "dataset=devices: what a device releases cannot follow from a noise that it does "
                f"not know; set here and on every device what does now: {words}"
            )
        return found

    def release(self, spec: DataSpec, server_round: int = 1) -> ReleaseShape:
        """Return the shape of a release."""
        return _client(cast(Hashable, self.algorithm), self.own, spec).release(server_round)

    def event(self, spec: DataSpec, server_round: int = 1) -> Event:
        """Return the event of a release of this run, whose noise must be known.

        Raises:
            ValueError: the noise is too small for its grid.
        """
        noise, honest = self.shared.noise_stddev, 1
        if self.shared.trust == "secure-aggregation":
            honest = self.shared.honest
            noise /= math.sqrt(honest)  # the share of one client
        event = self._event(self.release(spec, server_round), noise, honest)
        grid_step(event)
        return event

    def policy(self, spec: DataSpec) -> Policy:
        """Return the policy of a simulated device: what the run's settings ask for."""
        shared = self.shared
        shape = self.release(spec)
        budget = {name: getattr(shared, name) for name in Budget.model_fields}
        if shared.masked:
            budget |= {"min_honest": shared.honest, "max_colluding": shared.colluding}
            if math.isfinite(shared.max_epsilon):
                alone = gaussian_epsilon(shared.max_mu * math.sqrt(shared.honest), shared.delta)
                budget["max_epsilon_alone"] = alone * (1 + 1e-9)
        return Policy(
            **budget,
            trust=(shared.trust,),
            max_rows=shape.rows,
            clipping=shape.bounded,
            max_clipping_bound=shared.clipping_bound,
            min_noise_stddev=shared.noise_stddev,
            central_noise_stddev=shared.noise_stddev if shared.trust == "central" else 0.0,
        )

    def _event(self, shape: ReleaseShape, noise_stddev: float, honest: int) -> Event:
        return Event(
            **shape._asdict(),
            clipping_bound=self.shared.clipping_bound,
            noise_stddev=noise_stddev,
            trust=self.shared.trust,
            honest=honest,
        )


@lru_cache(maxsize=8)
def _client(algorithm: Any, own: Any, spec: DataSpec) -> Client:
    """Return a client half, which some algorithms build networks for."""
    client: Client = algorithm.Client(own, spec)
    return client


def defaults() -> dict[str, Value]:
    """Return every key of the shared settings and of this package's algorithms, with defaults."""
    return {key: value for _, table in _tables() for key, (value, _) in table.items()}


def flower_table() -> str:
    """Return the table ``[tool.flwr.app.config]`` as TOML, a comment for each key."""
    lines = ["[tool.flwr.app.config]"]
    for title, table in _tables():
        lines.append(f"# -- {title}")
        for key, (value, description) in table.items():
            text = f"{key} = {toml_value(value)}"
            comment = " ".join(description.split())
            lines.append(f"{text}  # {comment}" if comment else text)
    return "\n".join(lines) + "\n"


def write_flower_table(pyproject: Path) -> None:
    """Replace the table ``[tool.flwr.app.config]`` in a ``pyproject.toml``."""
    before, _, after = pyproject.read_text().partition("[tool.flwr.app.config]\n")
    rest = after[after.index("\n[") :]
    pyproject.write_text(before + flower_table() + rest)


def _tables() -> list[tuple[str, dict[str, tuple[Value, str]]]]:
    """Return (title, key -> (default, description)) of each group of settings."""
    groups: list[tuple[str, type[Settings]]] = [
        ("data", DataSettings),
        ("cohort", CohortSettings),
        ("privacy", PrivacySettings),
        ("run", RunSettings),
        ("algorithm", SharedSettings),
    ]
    # The default's keys first: where two algorithms share one, its default is in the table.
    names = sorted(algorithm_names(), key=lambda name: name != SharedSettings().algorithm)
    groups += [(f"of {name}", find_algorithm(name).Settings) for name in names]
    seen: set[str] = set()
    tables = []
    for title, settings in groups:
        table = {}
        for name, info in settings.model_fields.items():
            if name not in seen:
                seen.add(name)
                table[kebab(name)] = (info.default, info.description or "")
        tables.append((title, table))
    return tables


def _plug_in_table(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"algorithm-settings is not TOML: {error}") from error


if __name__ == "__main__":
    write_flower_table(Path("pyproject.toml"))

"""The settings of a run: frozen, one class per role, checked once, passed down by value.

Every field is one key of Flower's run config, of a TOML file and of ``--set``, in kebab-case:
``noise_stddev`` here is ``noise-stddev`` there. Keys are unique across the roles, so a config is a
flat table. ``pyproject.toml`` documents each key under ``[tool.flwr.app.config]``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fed_gswgan.flat_table import Value, from_table, to_table
from fed_gswgan.privacy_config import BudgetConfig, SanitizerConfig
from fed_gswgan.training_config import AdamConfig, CriticConfig, FieldConfig, GeneratorConfig
from fed_gswgan.validation import at_least, one_of, positive, share

DATASETS = (
    "digits", "qmnist", "fed-emnist", "leaf-femnist", "flwr-femnist", "folder", "devices",
)  # fmt: skip
CLASS_SETS = ("digits", "letters", "all", "merged")
MOST_VIRTUAL_CLIENTS = 100_000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which people's images, and how they are dealt to clients."""

    dataset: str = "digits"
    data_dir: str = ""  # empty: the folder named by FED_GSWGAN_DATA
    classes: str = "all"  # those the data set has; merged: EMNIST's 47
    min_images_per_writer: int = 1
    writers_per_client: int = 1
    max_clients: int = 0  # 0: everybody
    virtual_clients: int = 0  # share the shards, each with users of its own; 0: a client a shard
    writers_file: str = ""  # ids, one a line: only these; empty: everybody
    swapped_share: float = 0.0  # of the writers, whose ink and paper are swapped: a planted fault

    def __post_init__(self) -> None:
        one_of(DATASETS, dataset=self.dataset)
        one_of(CLASS_SETS, classes=self.classes)
        at_least(1, min_images_per_writer=self.min_images_per_writer)
        at_least(1, writers_per_client=self.writers_per_client)
        at_least(0, max_clients=self.max_clients)
        at_least(0, virtual_clients=self.virtual_clients)
        if self.virtual_clients > MOST_VIRTUAL_CLIENTS:
            raise ValueError(
                f"virtual-clients={self.virtual_clients} must be <= {MOST_VIRTUAL_CLIENTS}: a "
                "client's id has five digits"
            )
        if self.dataset == "devices" and not self.max_clients:
            raise ValueError(
                "max-clients=0 must be the number of devices to wait for, under dataset=devices"
            )
        share(swapped_share=self.swapped_share)


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Which algorithm trains the generator, and what only the baseline among them has.

    Source: FedAvg-GAN is that of Augenstein et al., arXiv 1911.06679.
    """

    algorithm: str = "gs-wgan"  # fedavg-gan: critics are averaged, by a server that is trusted
    generator_steps: int = 6  # of the server in a round
    server_learning_rate: float = 1.0  # on the mean update of the critic

    def __post_init__(self) -> None:
        one_of(("gs-wgan", "fedavg-gan"), algorithm=self.algorithm)
        at_least(1, generator_steps=self.generator_steps)
        positive(server_learning_rate=self.server_learning_rate)


@dataclass(frozen=True, kw_only=True)
class CohortConfig:
    """Who is asked in a round, with how many samples, and how long the server waits."""

    cohort_size: int = 14
    sampling_method: str = "fixed-size"
    batch_size: int = 32  # samples whose gradient a reply answers
    critic_batches: int = 0  # further batches for the critic's steps; 0: the answered one serves
    min_replies: int = 1
    reply_timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        at_least(1, cohort_size=self.cohort_size)
        one_of(("fixed-size", "poisson"), sampling_method=self.sampling_method)
        at_least(1, batch_size=self.batch_size)
        at_least(0, critic_batches=self.critic_batches)
        at_least(1, min_replies=self.min_replies)
        if self.sampling_method == "fixed-size" and self.min_replies > self.cohort_size:
            raise ValueError(
                f"min-replies={self.min_replies} must be <= cohort-size={self.cohort_size}, or no "
                "round ever makes a step"
            )
        positive(reply_timeout_seconds=self.reply_timeout_seconds)


DOWNLINK_CODECS = ("float32", "float16", "uint8", "uint8-deflate", "uint4-deflate")
UPLINK_CODECS = ("float32", "float16", "uint8", "uint4", "uint2", "uint1")
COARSE_CODECS = ("uint4", "uint2", "uint1")  # their range is that of the noise
LEAST_COARSE_NOISE = 1.0
FLOAT16_MAX = 65504.0


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """How a pixel and a gradient coordinate are written on the wire."""

    downlink_codec: str = "float32"
    uplink_codec: str = "float32"

    def __post_init__(self) -> None:
        one_of(DOWNLINK_CODECS, downlink_codec=self.downlink_codec)
        one_of(UPLINK_CODECS, uplink_codec=self.uplink_codec)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, from which seed, and what is written down."""

    rounds: int = 240
    seed: int = 0
    output_dir: str = ""  # empty: runs/<dataset>-<time>
    resume: bool = False  # go on with the run in output-dir
    checkpoint_every: int = 1
    samples_every: int = 20
    evaluation_samples: int = 4000  # 0: no metrics

    def __post_init__(self) -> None:
        at_least(1, rounds=self.rounds)
        at_least(0, seed=self.seed)
        at_least(1, checkpoint_every=self.checkpoint_every)
        at_least(1, samples_every=self.samples_every)
        if self.evaluation_samples != 0:
            at_least(2, evaluation_samples=self.evaluation_samples)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All roles of one run."""

    data: DataConfig = field(default_factory=DataConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    gradient_field: FieldConfig = field(default_factory=FieldConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    adam: AdamConfig = field(default_factory=AdamConfig)
    sanitizer: SanitizerConfig = field(default_factory=SanitizerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    cohort: CohortConfig = field(default_factory=CohortConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        largest = self.sanitizer.clipping_bound * (1 + 6 * self.sanitizer.noise_stddev)
        if self.codec.uplink_codec == "float16" and largest > FLOAT16_MAX:
            raise ValueError(
                f"uplink-codec=float16 holds values up to {FLOAT16_MAX:g}, noise-stddev="
                f"{self.sanitizer.noise_stddev:g} makes them as large as {largest:g}; use float32"
            )
        noise = self.sanitizer.noise_stddev
        if self.codec.uplink_codec in COARSE_CODECS and noise < LEAST_COARSE_NOISE:
            raise ValueError(
                f"uplink-codec={self.codec.uplink_codec} needs noise-stddev >= "
                f"{LEAST_COARSE_NOISE:g}, is {noise:g}: its few levels span the noise; use uint8"
            )
        if self.data.dataset == "devices" and self.run.evaluation_samples:
            raise ValueError(
                f"evaluation-samples={self.run.evaluation_samples} must be 0 under "
                "dataset=devices: the server has no image to compare with"
            )
        if self.algorithm.algorithm == "fedavg-gan" and self.sanitizer.clipping != "message":
            raise ValueError(
                f"clipping={self.sanitizer.clipping} must be message under algorithm=fedavg-gan: "
                "an update is clipped as a whole"
            )

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> "Config":
        """Build from a flat kebab-case table; a missing key takes its default.

        Raises:
            ValueError: a key that no role has, a value of the wrong type or out of range.
        """
        known = cls.defaults()
        for key, value in run_config.items():
            if key not in known:
                raise ValueError(f"{key}={value!r}: no such setting; known: {', '.join(known)}")
        roles = {role.name: type(getattr(cls(), role.name)) for role in fields(cls)}
        return cls(**{name: from_table(role, run_config) for name, role in roles.items()})

    def to_run_config(self) -> dict[str, Value]:
        """Return the flat kebab-case table that builds this very config."""
        return {
            k: v for role in fields(self) for k, v in to_table(getattr(self, role.name)).items()
        }

    @classmethod
    def defaults(cls) -> dict[str, Value]:
        """Return every key with its default."""
        return cls().to_run_config()

"""The settings of a run: frozen, one class per role, checked once, passed down by value.

Every field is one key of Flower's run config, of a TOML file and of ``--set``, in kebab-case:
``noise_stddev`` here is ``noise-stddev`` there. Keys are unique across the roles, so a config is a
flat table. ``pyproject.toml`` documents each key under ``[tool.flwr.app.config]``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fed_gswgan.flat_table import Value, from_table, to_table
from fed_gswgan.validation import at_least, between, non_negative, one_of, positive, share

DATASETS = (
    "digits", "qmnist", "fed-emnist", "leaf-femnist", "flwr-femnist", "folder", "devices",
)  # fmt: skip
MOST_FREQUENCIES = 28  # of an image of 28 x 28
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
class FieldConfig:
    """What the server makes of a release; whatever it is, privacy stays the same."""

    release_use: str = "step"  # the paper's: one generator step; field: fit a network, follow that
    field_rounds: int = 5  # of releases that it is fitted to
    field_steps: int = 20  # of fitting, a release
    field_width: int = 256
    field_learning_rate: float = 1e-3
    field_batch_size: int = 64  # samples of a generator step along the field
    generator_steps_per_release: int = 4  # along the field

    def __post_init__(self) -> None:
        one_of(("step", "field"), release_use=self.release_use)
        at_least(1, field_rounds=self.field_rounds)
        at_least(1, field_steps=self.field_steps)
        at_least(1, field_width=self.field_width)
        positive(field_learning_rate=self.field_learning_rate)
        at_least(1, field_batch_size=self.field_batch_size)
        at_least(1, generator_steps_per_release=self.generator_steps_per_release)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The generator and its optimizer; it stays on the server, but under ``fedavg-gan``."""

    generator: str = "slim"
    generator_width: int = 32
    latent_dim: int = 10
    latent_kind: str = "bernoulli"
    generator_learning_rate: float = 2e-3
    generator_learning_rate_end_factor: float = 1.0
    ema_halflife_steps: float = 10.0
    sample_contrast: float = 1.0

    def __post_init__(self) -> None:
        one_of(("slim", "dcgan", "resnet"), generator=self.generator)
        at_least(2, generator_width=self.generator_width)
        at_least(1, latent_dim=self.latent_dim)
        one_of(("bernoulli", "normal"), latent_kind=self.latent_kind)
        positive(generator_learning_rate=self.generator_learning_rate)
        share(generator_learning_rate_end_factor=self.generator_learning_rate_end_factor)
        non_negative(ema_halflife_steps=self.ema_halflife_steps)
        positive(sample_contrast=self.sample_contrast)


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The critic, and how a client trains it; it stays on the client, but under ``fedavg-gan``."""

    critic: str = "mlp"
    critic_width: int = 256
    class_embedding_stddev: float = 0.05  # of its first weights; mlp only
    critic_state: str = "persistent"  # snapshot: each participation starts from the same critic
    critic_steps: int = 5
    critic_learning_rate: float = 1e-3
    critic_compute: str = "float32"  # bfloat16: of the layers alone; the weights stay float32
    gradient_penalty: float = 10.0
    drift_penalty: float = 1e-3
    warm_start_steps: int = 0

    def __post_init__(self) -> None:
        one_of(("mlp", "conv"), critic=self.critic)
        at_least(1, critic_width=self.critic_width)
        non_negative(class_embedding_stddev=self.class_embedding_stddev)
        one_of(("persistent", "snapshot"), critic_state=self.critic_state)
        at_least(1, critic_steps=self.critic_steps)
        positive(critic_learning_rate=self.critic_learning_rate)
        one_of(("float32", "bfloat16"), critic_compute=self.critic_compute)
        non_negative(gradient_penalty=self.gradient_penalty)
        non_negative(drift_penalty=self.drift_penalty)
        at_least(0, warm_start_steps=self.warm_start_steps)


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """The moments of both Adam optimizers."""

    adam_beta1: float = 0.5
    adam_beta2: float = 0.9

    def __post_init__(self) -> None:
        for name in ("adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name.replace('_', '-')}={value} must be >= 0 and < 1")


@dataclass(frozen=True, kw_only=True)
class SanitizerConfig:
    """What is done to a sample gradient before it may leave. Changing any of it changes privacy."""

    clipping: str = "sample"  # sample: each row to C; message: the whole reply to C
    clipping_bound: float = 1.0  # C
    noise_stddev: float = 2.14  # on one coordinate of one row, in units of C
    noise_source: str = "secure"  # seeded: reproducible simulations only
    dct_frequencies: int = 0  # of each axis, that a reply is written in; 0: in pixels

    def __post_init__(self) -> None:
        one_of(("sample", "message"), clipping=self.clipping)
        between(1e-30, 1e30, clipping_bound=self.clipping_bound)
        between(1e-9, 1e9, noise_stddev=self.noise_stddev)
        one_of(("secure", "seeded"), noise_source=self.noise_source)
        if not 0 <= self.dct_frequencies <= MOST_FREQUENCIES:
            raise ValueError(
                f"dct-frequencies={self.dct_frequencies} must lie in [0, {MOST_FREQUENCIES}]"
            )


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """How the ledger is read, and when it refuses."""

    neighboring_relation: str = "replace-one"
    delta: float = 1e-5
    max_epsilon: float = math.inf  # inf: no limit, and said so in the summary
    max_participations: int = 0  # replies of a user; 0: no limit

    def __post_init__(self) -> None:
        one_of(("replace-one", "zero-out"), neighboring_relation=self.neighboring_relation)
        between(0, 1, delta=self.delta)
        if self.max_epsilon != math.inf:
            positive(max_epsilon=self.max_epsilon)
        at_least(0, max_participations=self.max_participations)


@dataclass(frozen=True, kw_only=True)
class CohortConfig:
    """Who is asked in a round, with how many samples, and how long the server waits."""

    cohort_size: int = 14
    sampling_method: str = "fixed-size"
    batch_size: int = 32  # samples whose gradient a reply answers
    critic_batches: int = 0  # further batches for the critic's steps; 0: the answered one serves
    min_replies: int = 1
    reply_timeout_seconds: float = 600.0
    rounds_in_flight: int = 1  # more: asked before older rounds end, at samples that are older

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
        at_least(1, rounds_in_flight=self.rounds_in_flight)


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
        in_flight = self.cohort.rounds_in_flight
        if self.algorithm.algorithm == "fedavg-gan" and in_flight > 1:
            raise ValueError(
                f"rounds-in-flight={in_flight} must be 1 under algorithm=fedavg-gan: an update is "
                "relative to the critic that was sent"
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

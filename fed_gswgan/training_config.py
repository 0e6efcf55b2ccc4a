"""The settings of both networks and their training; none of them changes privacy."""

from dataclasses import dataclass

from fed_gswgan.validation import at_least, non_negative, one_of, positive, share


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

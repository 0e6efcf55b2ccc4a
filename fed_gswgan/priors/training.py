"""Training on a public pool of images: features, a generator, and critics to start from.

Everything runs where the pool lies, on a CPU or a GPU, and draws from one seed.

Shapes: L classes, M images of a class, N images, B batch, H and W image.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    critic_step,
    sample_gradient,
)
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.features import FeatureNetwork, NetworkComponents
from fed_gswgan.models.judge import StrokeJudge
from fed_gswgan.models.registry import (
    GeneratorSettings,
    build_critic,
    build_generator,
    initial_weights_from,
)
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.seeding import SeedStream

READING_BATCH_SIZE = 256
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
SPECKLE = 0.03  # standard deviation of noise on a pixel
FITTED_IMAGES = 12_000  # that components are taken of

BATCH_SIZE = 128
# Of the critic that a generator learns from; the generator's own rate falls tenfold.
TEACHER = CriticSettings(critic="conv", critic_width=48, critic_steps=3, critic_learning_rate=4e-4)
GENERATOR_RATE = {
    "generator_learning_rate": 1e-3,
    "generator_learning_rate_end_factor": 0.1,
    "ema_halflife_steps": 140.0,
}

Reader = TypeVar("Reader", FeatureNetwork, StrokeJudge)
Progress = Callable[[float], None]
"""Takes the share of the work that is done."""


def train_feature_network(
    pool_LMHW: Tensor,
    width: int,
    steps: int,
    seeds: SeedStream,
    progress: Progress = lambda share: None,
) -> FeatureNetwork:
    """Train a classifier of the pool, strongly distorted, whose hidden layers are features.

    Args:
        pool_LMHW: the images, L at least 2.
        width: channels of the first convolution.
        steps: of AdamW, the learning rate rising and falling once.
        seeds: of weights, batches and distortions.
        progress: is told after each step.

    Returns:
        The network in eval mode.
    """
    with initial_weights_from(seeds.torch_seed("feature-network")):
        network = FeatureNetwork(len(pool_LMHW), width)
    return _taught_to_read(network, pool_LMHW, steps, seeds, "feature-network-batches", progress)


def train_judge(
    pool_LMHW: Tensor, steps: int, seeds: SeedStream, progress: Progress = lambda share: None
) -> StrokeJudge:
    """Train the second judge as ``train_feature_network`` trains its own, from other randomness."""
    with initial_weights_from(seeds.torch_seed("judge")):
        judge = StrokeJudge(len(pool_LMHW))
    return _taught_to_read(judge, pool_LMHW, steps, seeds, "judge-batches", progress)


def _taught_to_read(
    network: Reader,
    pool_LMHW: Tensor,
    steps: int,
    seeds: SeedStream,
    purpose: str,
    progress: Progress,
) -> Reader:
    classes, images = pool_LMHW.shape[:2]
    network.to(pool_LMHW.device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    randomness = seeds.generator(purpose)
    for step in range(steps):
        labels = randomness.integers(classes, size=READING_BATCH_SIZE)
        chosen = pool_LMHW[labels, randomness.integers(images, size=READING_BATCH_SIZE)]
        batch = distorted(chosen[:, None], randomness)
        loss = functional.cross_entropy(
            network(batch),
            torch.from_numpy(labels).to(pool_LMHW.device),
            label_smoothing=LABEL_SMOOTHING,
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress((step + 1) / steps)
    return network.eval()


def components_of(network: FeatureNetwork, pool_LMHW: Tensor, components: int) -> NetworkComponents:
    """Return the principal components of a network's hidden layers over the pool."""
    found = NetworkComponents(network.hidden, components).to(pool_LMHW.device)
    most = max(FITTED_IMAGES // len(pool_LMHW), 1)
    found.fit(pool_LMHW[:, :most].flatten(0, 1)[:, None])
    return found


def train_generator(
    pool_LMHW: Tensor,
    settings: GeneratorSettings,
    steps: int,
    seeds: SeedStream,
    progress: Progress = lambda share: None,
) -> nn.Module:
    """Train a generator of the pool's images as a WGAN-GP, and return its moving average.

    Args:
        pool_LMHW: the images.
        settings: of the generator's network and latents; its learning rate is this module's.
        steps: of the generator; the critic takes ``TEACHER.critic_steps`` before each.
        seeds: of weights, batches and latents.
        progress: is told after each step.
    """
    spec = _spec_of(pool_LMHW)
    settings = settings.model_copy(update=GENERATOR_RATE)
    generator = build_generator(settings, spec, seeds.torch_seed("prior-generator"))
    trainer = GeneratorTrainer(generator.to(pool_LMHW.device), settings)
    critic = build_critic(TEACHER, spec, seeds.torch_seed("prior-teacher")).to(pool_LMHW.device)
    optimizer = critic_optimizer(critic, TEACHER)
    randomness = seeds.generator("prior-batches")
    for step in range(steps):
        trainer.set_learning_rate(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = TEACHER.critic_learning_rate * _fallen(step / steps)
        _teach(critic, optimizer, trainer, pool_LMHW, settings, TEACHER, randomness)
        latents_BZ, labels_B = _inputs(settings, pool_LMHW, randomness)
        samples_BCHW = trainer.samples(latents_BZ, labels_B)
        gradient_BCHW = sample_gradient(critic, samples_BCHW, labels_B)
        trainer.step(latents_BZ, labels_B, gradient_BCHW)
        progress((step + 1) / steps)
    return trainer.ema_generator


def train_prior_critic(
    pool_LMHW: Tensor,
    generator: nn.Module,
    settings: GeneratorSettings,
    critic_settings: CriticSettings,
    steps: int,
    seeds: SeedStream,
    progress: Progress = lambda share: None,
) -> nn.Module:
    """Train a critic against a finished generator: what trained critics may start from."""
    critic = build_critic(critic_settings, _spec_of(pool_LMHW), seeds.torch_seed("prior-critic"))
    critic = critic.to(pool_LMHW.device)
    optimizer = critic_optimizer(critic, critic_settings)
    trainer = GeneratorTrainer(generator, settings)
    randomness = seeds.generator("prior-critic-batches")
    one_step = critic_settings.model_copy(update={"critic_steps": 1})
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = critic_settings.critic_learning_rate * _fallen(step / steps)
        _teach(critic, optimizer, trainer, pool_LMHW, settings, one_step, randomness)
        progress((step + 1) / steps)
    return critic


def _teach(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    trainer: GeneratorTrainer,
    pool_LMHW: Tensor,
    settings: GeneratorSettings,
    critic_settings: CriticSettings,
    randomness: np.random.Generator,
) -> None:
    """Take a critic's steps between images of the pool and samples of the generator."""
    for _ in range(critic_settings.critic_steps):
        latents_BZ, labels_B = _inputs(settings, pool_LMHW, randomness)
        chosen_B = torch.from_numpy(randomness.integers(pool_LMHW.shape[1], size=BATCH_SIZE))
        images_BCHW = pool_LMHW[labels_B, chosen_B.to(labels_B.device)][:, None]
        mix_B = torch.from_numpy(randomness.random(BATCH_SIZE, dtype=np.float32))
        samples_BCHW = trainer.samples(latents_BZ, labels_B)
        mix_B = mix_B.to(labels_B.device)
        critic_step(critic, optimizer, images_BCHW, samples_BCHW, labels_B, mix_B, critic_settings)


def _inputs(
    settings: GeneratorSettings, pool_LMHW: Tensor, randomness: np.random.Generator
) -> tuple[Tensor, Tensor]:
    kind = settings.latent_kind
    latents_BZ = draw_latents(BATCH_SIZE, settings.latent_dim, kind, randomness)
    labels_B = draw_labels(BATCH_SIZE, len(pool_LMHW), randomness)
    return latents_BZ.to(pool_LMHW.device), labels_B.to(pool_LMHW.device)


def _fallen(elapsed: float) -> float:
    """Return the share of a critic's learning rate that is left: it falls from 0.6 of the steps."""
    return 1.0 if elapsed < 0.6 else 0.3


def _spec_of(pool_LMHW: Tensor) -> DataSpec:
    return DataSpec((1, *pool_LMHW.shape[2:]), len(pool_LMHW))


def distorted(images_B1HW: Tensor, randomness: np.random.Generator) -> Tensor:
    """Distort images as scans and hands do, so that a network reads more than it was shown.

    A random affine map, an elastic one, thicker or thinner lines, another contrast, and speckle.

    Args:
        images_B1HW: float32 in [0, 1], ink 1.
        randomness: decides every distortion.
    """
    count, side = len(images_B1HW), images_B1HW.shape[-1]

    def normal(*shape: int) -> Tensor:
        drawn = torch.from_numpy(randomness.standard_normal(shape, dtype=np.float32))
        return drawn.to(images_B1HW.device)

    def uniform(*shape: int) -> Tensor:
        drawn = torch.from_numpy(randomness.random(shape, dtype=np.float32))
        return drawn.to(images_B1HW.device)

    affine_B23 = torch.eye(2, 3).to(images_B1HW) + 0.08 * normal(count, 2, 3)
    grid_BHW2 = functional.affine_grid(affine_B23, [count, 1, side, side], align_corners=False)
    elastic_B2HW = functional.interpolate(
        0.09 * normal(count, 2, 4, 4), (side, side), mode="bicubic", align_corners=True
    )
    grid_BHW2 = grid_BHW2 + elastic_B2HW.permute(0, 2, 3, 1)
    moved = functional.grid_sample(images_B1HW, grid_BHW2, align_corners=False)
    thicker = functional.max_pool2d(moved, 3, 1, 1)
    thinner = -functional.max_pool2d(-functional.pad(moved, (0, 1, 0, 1)), 2, 1)
    kind, share = uniform(count, 1, 1, 1), uniform(count, 1, 1, 1)
    other = torch.where(kind < 0.25, thicker, torch.where(kind > 0.8, thinner, moved))
    mixed = (moved + share * (other - moved)).clamp(0, 1)
    contrast = mixed ** torch.exp(0.4 * normal(count, 1, 1, 1))
    faded = contrast * (0.7 + 0.3 * uniform(count, 1, 1, 1))
    return (faded + SPECKLE * normal(*faded.shape)).clamp(0, 1)

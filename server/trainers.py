"""Builds what trains the generator: one trainer for each algorithm and use of a release."""

from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_critic, build_generator, initial_weights_from
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.averaged_critic import AveragedCriticTrainer
from fed_gswgan.training.field_trainer import FieldTrainer
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training.gradient_field import GradientField


def build_trainer(config: Config, num_classes: int) -> GeneratorTrainer:
    """Return the trainer that the settings ask for, its networks drawn from the run's seed."""
    seeds = SeedStream(config.run.seed)
    spec = DataSpec(IMAGE_SHAPE, num_classes)
    generator = build_generator(config.generator, spec, seeds.torch_seed("generator-weights"))
    if config.algorithm.algorithm == "gs-wgan":
        if config.gradient_field.release_use == "step":
            return GeneratorTrainer(generator, config.generator, config.adam)
        field = _gradient_field(config, num_classes)
        return FieldTrainer(
            generator, field, config.generator, config.adam, config.gradient_field, num_classes
        )
    critic = build_critic(config.critic, spec, seeds.torch_seed("critic-weights"))
    return AveragedCriticTrainer(generator, critic, config.generator, config.adam)


def _gradient_field(config: Config, num_classes: int) -> GradientField:
    with initial_weights_from(SeedStream(config.run.seed).torch_seed("field-weights")):
        return GradientField(
            num_classes,
            (config.cohort.batch_size, *IMAGE_SHAPE),
            config.sanitizer.dct_frequencies,
            config.sanitizer.clipping_bound,
            config.gradient_field.field_rounds,
            config.gradient_field.field_width,
        )

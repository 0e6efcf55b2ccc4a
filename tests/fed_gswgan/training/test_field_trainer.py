import numpy as np
import torch

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_generator, initial_weights_from
from fed_gswgan.reporting.checkpoint import Checkpoint, Progress
from fed_gswgan.training.field_trainer import FieldTrainer
from fed_gswgan.training.generator_trainer import draw_labels, draw_latents
from fed_gswgan.training.gradient_field import GradientField
from fed_gswgan.training_config import AdamConfig, FieldConfig, GeneratorConfig

CONFIG = GeneratorConfig(generator_width=4, latent_dim=4)
FIELD = FieldConfig(field_rounds=3, field_steps=5, field_batch_size=8, field_width=16)


def new_trainer(seed=0):
    with initial_weights_from(seed):
        field = GradientField(3, (8, 1, 28, 28), 4, 1.0, FIELD.field_rounds, FIELD.field_width)
    return FieldTrainer(
        build_generator(CONFIG, DataSpec(IMAGE_SHAPE, 3), seed),
        field,
        CONFIG,
        AdamConfig(),
        FIELD,
        3,
    )


def learn(trainer, server_rounds, direction=1.0):
    """Learn from releases that ask every sample for more ink, or less."""
    for server_round in server_rounds:
        randomness = np.random.default_rng(server_round)
        latents, labels = draw_latents(8, 4, "normal", randomness), draw_labels(8, 3, randomness)
        gradient = torch.full((8, 1, 28, 28), -direction / 28)
        samples = trainer.samples(latents, labels)
        norm = trainer.learn(latents, labels, samples, gradient, randomness)
        assert norm > 0
    return trainer


def ink(trainer):
    randomness = np.random.default_rng(99)
    latents, labels = draw_latents(30, 4, "normal", randomness), draw_labels(30, 3, randomness)
    return float(trainer.samples(latents, labels).mean())


def test_the_generator_goes_where_the_releases_point():
    before = ink(new_trainer())
    assert ink(learn(new_trainer(), range(6), 1.0)) > before + 0.01
    assert ink(learn(new_trainer(), range(6), -1.0)) < before - 0.01


def test_a_release_makes_as_many_steps_as_were_asked_for():
    trainer = learn(new_trainer(), range(2))
    (state, *_) = trainer.optimizer.state_dict()["state"].values()
    assert int(state["step"]) == 2 * FIELD.generator_steps_per_release


def test_a_checkpoint_resumes_field_releases_and_both_optimizers(tmp_path):
    whole = learn(new_trainer(), range(6))
    Checkpoint(tmp_path).save(
        learn(new_trainer(), range(3)),
        Progress(server_round=3, seconds=0, replies={}, byte_meter={}),
    )
    resumed = new_trainer(seed=1)
    Checkpoint(tmp_path).load(resumed)
    learn(resumed, range(3, 6))
    for name, network in whole.networks().items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, resumed.networks()[name].state_dict()[key]), (name, key)

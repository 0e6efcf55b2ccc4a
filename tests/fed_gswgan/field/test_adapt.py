"""Adaptation of a pool and a generator to fields of clients that a test makes up."""

import math

import pytest
import torch

from fed_gswgan.critics.cramer import Field, unit_mean
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field import adapt
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import AdaptationSettings
from fed_gswgan.priors import prior
from fed_gswgan.seeding import SeedStream

CLASSES = ("1", "7")
SPEC = DataSpec((1, 28, 28), 2, CLASSES)
ROUNDS = 2
SETTINGS = {"prior": "strokes", "features": "dct", "points": 3, "fit_steps": 6}


@pytest.fixture(autouse=True)
def small(monkeypatch, few_drawings):
    """Make pool, steps and batches small."""
    few_drawings(60)
    monkeypatch.setattr(adapt, "SAMPLES", 16)
    monkeypatch.setattr(adapt, "LEAST_SAMPLES", 4)
    monkeypatch.setattr(adapt, "CENTRE", 20)


def adaptation(**changed):
    settings = AdaptationSettings(**(SETTINGS | changed))
    return Adaptation(settings, SPEC, SeedStream(1), ROUNDS)


def answered(found, server_round, deviation=0.05):
    """Ask, and let clients answer who hold tall drawings alone."""
    question = found.ask(server_round)
    drawings = prior.drawn_pool(CLASSES, 0)
    heights = (drawings.amax(3) > 0.2).sum(2)
    points = question.points_LPD.float()
    values = [
        unit_mean(q, found.features(images[height > height.float().median()][:, None]))
        for q, images, height in zip(points, drawings, heights, strict=True)
    ]
    field = Field(points, torch.stack(values), torch.full((2,), deviation))
    return question, field, heights


def test_questions_are_images_of_the_pool_with_the_pools_mean_direction():
    found = adaptation()
    question = found.ask(1)
    assert question.points_LPD.shape == (2, 3, 49)
    assert question.points_LPD.dtype == question.public_LPE.dtype == torch.float16
    nearest = torch.cdist(question.points_LPD.float(), found.pool.features_LMD).amin(2)
    assert nearest.max() < 0.2
    expected = unit_mean(question.points_LPD.float(), found.pool.features_LMD)
    assert question.public_LPE.float() == pytest.approx(expected, abs=2e-3)
    again = adaptation().ask(1)
    assert all(torch.equal(*pair) for pair in zip(question, again, strict=True))
    assert not torch.equal(question.points_LPD, found.ask(2).points_LPD)


def test_points_can_be_drawn_where_one_image_has_all_the_weight():
    found = adaptation(fit_steps=2)
    one = torch.full((2, 60), -torch.inf)
    one[:, 7] = 0.0
    found.weigh(one)
    points = found.ask(1).points_LPD.float()
    nearest = torch.cdist(points, found.pool.features_LMD).argmin(2)
    assert (nearest == 7).any(1).all()
    assert torch.isfinite(found.ask(1).public_LPE).all()
    assert 0 < found.fit(1, torch.ones(2), torch.ones(2)) < math.inf


def test_weights_and_generator_move_to_what_clients_hold():
    found = adaptation(fit_steps=60)
    labels = torch.arange(2).repeat_interleave(50)
    latents = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))

    def height():
        samples = found.trainer.samples(latents, labels)
        return (samples.amax(3) > 0.2).sum(2).float().mean()

    before = height()
    question, field, heights = answered(found, 1)
    metrics = found.learn(1, field, question.latents_LPZ)
    weights = found.log_weights_LM.exp()
    assert weights.sum(1) == pytest.approx(torch.ones(2))
    tall = heights > heights.float().median(1, keepdim=True).values
    assert (weights * tall).sum(1).min() > 0.8
    assert metrics["pool_images_in_use"] < 50
    assert height() > before + 1


@pytest.mark.parametrize("name", ["strokes", "none"])
def test_it_goes_on_from_its_state_to_the_bit(name):
    found = adaptation(prior=name)
    question, field, _ = answered(found, 1)
    found.learn(1, field, question.latents_LPZ)
    resumed = adaptation(prior=name)
    resumed.load_state_dict(found.state_dict())
    for one in (found, resumed):
        question, field, _ = answered(one, 2)
        one.learn(2, field, question.latents_LPZ)
    first, second = found.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys()
    assert len([key for key in first if key.startswith("field/")]) == 2 * 4
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_without_a_prior_it_asks_at_samples_and_follows_the_field():
    found = adaptation(prior="none")
    question, field, _ = answered(found, 1)
    assert question.latents_LPZ.shape == (2, 3, 32)
    features = found.samples_features(question.latents_LPZ)
    assert question.points_LPD.float() == pytest.approx(features.detach(), abs=2e-2)
    before = {n: t.clone() for n, t in found.trainer.generator.state_dict().items()}
    found.learn(1, field, question.latents_LPZ)
    after = found.trainer.generator.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert found.pool is None


def test_precise_fields_are_asked_at_samples_and_vague_ones_at_the_pool():
    for deviation, asked_at_samples in ((0.02, False), (0.002, True)):
        found = adaptation()
        question, field, _ = answered(found, 1, deviation)
        assert question.latents_LPZ.shape[2] == 0
        found.learn(1, field, question.latents_LPZ)
        assert found.samples_are_asked == asked_at_samples
        again = found.ask(2)
        assert again.latents_LPZ.shape == (2, 3, 32 if asked_at_samples else 0)
        if asked_at_samples:
            features = found.samples_features(again.latents_LPZ)
            assert again.points_LPD.float() == pytest.approx(features.detach(), abs=2e-2)
            found.learn(2, field._replace(points_LPD=again.points_LPD.float()), again.latents_LPZ)


@pytest.mark.parametrize(("rounds", "expected"), [((1, 2, 3, 4), [3, 3, 0, 0]), ((2, 3), [6, 0])])
def test_the_steps_of_all_rounds_together_are_those_of_the_fit(monkeypatch, rounds, expected):
    """Those of a round that was lost are taken in the next."""
    found, taken = adaptation(), []
    step = found._step
    monkeypatch.setattr(found, "_step", lambda *given: taken.append(0) or step(*given))
    counts = []
    for server_round in rounds:
        before = len(taken)
        question, field, _ = answered(found, server_round)
        found.learn(server_round, field, question.latents_LPZ)
        counts.append(len(taken) - before)
    assert counts == expected


@pytest.mark.parametrize(("most", "kept"), [(7 * 49, 2), (10, 1)])  # the last one always stays
def test_only_so_many_numbers_are_kept(monkeypatch, most, kept):
    monkeypatch.setattr(adapt, "MOST_NUMBERS", most)
    found = adaptation()
    for server_round in (1, 2, 3):
        question, field, _ = answered(found, server_round)
        found.learn(server_round, field, question.latents_LPZ)
    assert len(found.fields) == len(found.latents) == kept
    assert torch.equal(found.fields[-1].points_LPD, field.points_LPD)

import pytest

from fed_gswgan.config import Config
from fed_gswgan.training.averaged_critic import AveragedCriticTrainer
from fed_gswgan.training.field_trainer import FieldTrainer
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from server.trainers import build_trainer

WANTED = {
    "step": ({"release-use": "step"}, GeneratorTrainer),
    "field": ({"release-use": "field"}, FieldTrainer),
    "fedavg-gan": ({"algorithm": "fedavg-gan", "clipping": "message"}, AveragedCriticTrainer),
}


def built(settings, seed=0):
    narrow = {"generator-width": 8, "critic-width": 16, "batch-size": 8, "seed": seed}
    return build_trainer(Config.from_run_config(narrow | settings), num_classes=10)


def weights(trainer):
    return trainer.generator.state_dict()


@pytest.mark.parametrize("wanted", WANTED)
def test_the_settings_decide_what_trains_the_generator(wanted):
    settings, kind = WANTED[wanted]
    assert type(built(settings)) is kind


@pytest.mark.parametrize("wanted", WANTED)
def test_the_first_weights_follow_from_the_seed(wanted):
    settings, _ = WANTED[wanted]
    first, again, other = (weights(built(settings, seed)) for seed in (0, 0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_the_fields_first_weights_follow_from_the_seed_too():
    first, again, other = (built({"release-use": "field"}, seed).field for seed in (0, 0, 1))
    same = [p.equal(q) for p, q in zip(first.parameters(), again.parameters(), strict=True)]
    moved = [p.equal(q) for p, q in zip(first.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not all(moved)

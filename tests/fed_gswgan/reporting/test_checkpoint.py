import json

import pytest
import torch
from safetensors.torch import load_file

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_generator
from fed_gswgan.reporting.checkpoint import Checkpoint, Progress
from fed_gswgan.reporting.files import replace_file
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training_config import AdamConfig, GeneratorConfig

# Its spectral norm keeps buffers, which a checkpoint of the parameters alone would lose.
CONFIG = GeneratorConfig(generator="resnet", generator_width=2, latent_dim=4)


def new_trainer(seed=0, config=CONFIG):
    return GeneratorTrainer(
        build_generator(config, DataSpec(IMAGE_SHAPE, 3), seed), config, AdamConfig()
    )


def train(trainer, server_rounds):
    for server_round in server_rounds:
        randomness = torch.Generator().manual_seed(server_round)
        latents = torch.randn(3, 4, generator=randomness)
        gradient = torch.randn(3, 1, 28, 28, generator=randomness)
        trainer.step(latents, torch.tensor([0, 1, 2]), gradient)
    return trainer


def progress_at(server_round):
    return Progress(
        server_round=server_round,
        seconds=1.25,
        replies={"received": 14, "failed": 1},
        byte_meter={"downlink_total": 7, "requests": 1},
    )


def everything_of(trainer):
    tensors = {f"generator {n}": t for n, t in trainer.generator.state_dict().items()}
    tensors |= {f"ema {n}": t for n, t in trainer.ema_generator.state_dict().items()}
    for position, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"adam {position} {n}": t for n, t in state.items()}
    return tensors


def same_to_the_bit(first, second):
    first, second = everything_of(first), everything_of(second)
    assert first.keys() == second.keys()
    return all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype
        for name in first
    )


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoint").iterdir())


def test_a_checkpoint_brings_back_every_tensor_to_the_bit(tmp_path):
    trainer = train(new_trainer(), range(3))
    Checkpoint(tmp_path).save(trainer, progress_at(3))
    restored = new_trainer(seed=1)
    assert Checkpoint(tmp_path).load(restored) == progress_at(3)
    assert same_to_the_bit(restored, trainer)


def test_training_after_loading_equals_training_without_a_stop(tmp_path):
    whole = train(new_trainer(), range(6))
    Checkpoint(tmp_path).save(train(new_trainer(), range(3)), progress_at(3))
    resumed = new_trainer(seed=1)
    Checkpoint(tmp_path).load(resumed)
    train(resumed, range(3, 6))
    assert same_to_the_bit(resumed, whole)


def test_a_trainer_that_never_stepped_can_be_saved(tmp_path):
    Checkpoint(tmp_path).save(new_trainer(), progress_at(0))
    resumed = train(new_trainer(seed=1), range(2))
    Checkpoint(tmp_path).load(resumed)
    assert same_to_the_bit(train(resumed, range(2)), train(new_trainer(), range(2)))


def test_progress_is_read_without_the_tensors(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    assert not checkpoint.exists()
    checkpoint.save(new_trainer(), progress_at(7))
    assert checkpoint.exists()
    assert checkpoint.progress() == progress_at(7)


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.json: no checkpoint"):
        Checkpoint(tmp_path).load(new_trainer())
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.json: no checkpoint"):
        Checkpoint(tmp_path).progress()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\x55"])
def test_damaged_tensors_are_refused_and_change_nothing(tmp_path, damage):
    Checkpoint(tmp_path).save(train(new_trainer(), range(2)), progress_at(2))
    path = tmp_path / "checkpoint" / "round-000002.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    trainer = new_trainer(seed=1)
    with pytest.raises(ValueError, match=r"round-000002\.safetensors.*damaged"):
        Checkpoint(tmp_path).load(trainer)
    assert same_to_the_bit(trainer, new_trainer(seed=1))


def test_older_tensors_are_removed(tmp_path):
    trainer = new_trainer()
    for server_round in (1, 2, 10):
        Checkpoint(tmp_path).save(trainer, progress_at(server_round))
    assert files(tmp_path) == ["checkpoint.json", "round-000010.safetensors"]


def test_a_crash_between_tensors_and_index_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    older = train(new_trainer(), range(2))
    Checkpoint(tmp_path).save(older, progress_at(2))

    def crash(path, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fed_gswgan.reporting.checkpoint.replace_json", crash)
        with pytest.raises(KeyboardInterrupt):
            Checkpoint(tmp_path).save(train(new_trainer(), range(3)), progress_at(3))
    assert "round-000003.safetensors" in files(tmp_path)
    restored = new_trainer(seed=1)
    assert Checkpoint(tmp_path).load(restored) == progress_at(2)
    assert same_to_the_bit(restored, older)
    # The round is run again and saved over what the crash left.
    Checkpoint(tmp_path).save(train(restored, [2]), progress_at(3))
    assert Checkpoint(tmp_path).load(new_trainer()) == progress_at(3)
    assert files(tmp_path) == ["checkpoint.json", "round-000003.safetensors"]


def test_a_crash_while_writing_tensors_leaves_the_older_checkpoint(tmp_path):
    Checkpoint(tmp_path).save(new_trainer(), progress_at(2))
    (tmp_path / "checkpoint" / ".round-000003.safetensors.draft").write_bytes(b"half a fi")
    assert Checkpoint(tmp_path).load(new_trainer(seed=1)) == progress_at(2)


def test_a_checkpoint_holds_json_and_safetensors_and_no_pickle(tmp_path):
    Checkpoint(tmp_path).save(train(new_trainer(), range(2)), progress_at(2))
    assert files(tmp_path) == ["checkpoint.json", "round-000002.safetensors"]
    folder = tmp_path / "checkpoint"
    assert set(json.loads((folder / "checkpoint.json").read_text())) == {
        "tensors", "sha256", "progress",
    }  # fmt: skip
    tensors = load_file(folder / "round-000002.safetensors")
    assert {name.split("/")[0] for name in tensors} == {"generator", "ema", "optimizer"}


def test_tensors_of_another_network_are_refused(tmp_path):
    Checkpoint(tmp_path).save(new_trainer(), progress_at(1))
    other = GeneratorConfig(generator="slim", generator_width=2, latent_dim=4)
    with pytest.raises(ValueError, match=r"round-000001\.safetensors: .* another network"):
        Checkpoint(tmp_path).load(new_trainer(config=other))


def test_the_index_names_tensors_that_are_there(tmp_path):
    Checkpoint(tmp_path).save(new_trainer(), progress_at(1))
    index = tmp_path / "checkpoint" / "checkpoint.json"
    record = json.loads(index.read_text())
    replace_file(index, json.dumps(record | {"tensors": "round-000009.safetensors"}).encode())
    with pytest.raises(FileNotFoundError, match=r"round-000009\.safetensors"):
        Checkpoint(tmp_path).load(new_trainer())

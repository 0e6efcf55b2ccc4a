import json

import pytest
import torch

from fed_gswgan.cli import main
from fed_gswgan.data.registry import DataSettings, open_source
from fed_gswgan.evaluation.samplers import write_samples


def measured(capsys, *words):
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_gets_the_metrics_of_its_own_summary(small_run, few_steps, capsys):
    run = small_run(rounds=1, evaluation_samples=200)
    found = measured(capsys, run, "--samples", 200)
    expected = json.loads((run / "summary.json").read_text())["metrics"]
    del found["seconds"], expected["seconds"]
    assert found == expected


def test_real_images_in_a_file_score_better_than_noise(tmp_path, capsys, few_steps):
    held_out = open_source(DataSettings(classes="digits")).held_out()
    images, labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
    write_samples(tmp_path / "real.npz", images, labels)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    write_samples(tmp_path / "noise.npz", noise, labels)
    options = ("--dataset", "digits", "--classes", "digits", "--samples", 300)
    real = measured(capsys, tmp_path / "real.npz", *options)
    noisy = measured(capsys, tmp_path / "noise.npz", *options)
    assert real["frechet_distance"] < noisy["frechet_distance"] / 10


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["{file}"], "dataset must be given"),
        (["{run}", "--dataset", "digits"], "dataset=digits: a run knows its own; leave it out"),
        (["{run}", "--data-dir", "x"], "data-dir=x: a run knows its own; leave it out"),
        (["{run}", "--classes", "all"], "classes=all: a run knows its own; leave it out"),
        (
            ["{run}", "--min-images-per-writer", "1"],
            "min-images-per-writer=1: a run knows its own; leave it out",
        ),
        (
            ["{run}", "--preset", "small"],
            "preset=small: of mnist and fashion-mnist alone; leave it out",
        ),
        (
            ["{file}", "--dataset", "digits", "--preset", "full"],
            "preset=full: of mnist and fashion-mnist alone; leave it out",
        ),
        (
            ["{file}", "--dataset", "mnist", "--samples", "4000"],
            "samples=4000: the preset decides for mnist; leave it out",
        ),
        (
            ["{file}", "--dataset", "mnist", "--classes", "digits"],
            "classes=digits: not of mnist; leave it out",
        ),
        (
            ["{file}", "--dataset", "fashion-mnist", "--min-images-per-writer", "2"],
            "min-images-per-writer=2: not of fashion-mnist; leave it out",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_named(tmp_path, capsys, words, named):
    file, run = tmp_path / "samples.npz", tmp_path  # refused before the run is looked for
    write_samples(file, torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]))
    assert main(["evaluate", *(word.format(file=file, run=run) for word in words)]) == 2
    assert named in capsys.readouterr().err


def test_a_class_without_samples_is_named(tmp_path, capsys):
    file = tmp_path / "samples.npz"
    write_samples(file, torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]))
    assert main(["evaluate", str(file), "--dataset", "digits", "--classes", "digits"]) == 2
    assert "labels=[2, 3" in capsys.readouterr().err

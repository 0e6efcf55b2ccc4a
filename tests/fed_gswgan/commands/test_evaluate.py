import json

import numpy as np
import pytest
import torch

from fed_gswgan.cli import main
from fed_gswgan.data.registry import DataSettings, open_source
from fed_gswgan.evaluation import report
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


OPTIONS = ("--dataset", "digits", "--classes", "digits")


def test_a_subset_of_the_classes_is_measured_on_that_subset_and_counts_are_true(
    tmp_path, capsys, few_steps
):
    held_out = open_source(DataSettings(classes="digits")).held_out()
    chosen = np.isin(held_out.labels, (3, 7))
    images, labels = held_out.images[chosen], held_out.labels[chosen]
    write_samples(tmp_path / "two.npz", torch.from_numpy(images), torch.from_numpy(labels))
    found = measured(capsys, tmp_path / "two.npz", *OPTIONS)
    assert (found["classes"], found["held_out_images"]) == (2, 60)
    assert found["samples_in_file"] == found["sample_count"] == 60
    assert "kernel_distance" in found
    assert main(["evaluate", str(tmp_path / "two.npz"), *OPTIONS, "--samples", "61"]) == 2
    assert "samples=61 must be <= 60, those in" in capsys.readouterr().err


def test_equal_samples_leave_numbers_or_null_with_a_note(tmp_path, capsys, few_steps):
    write_samples(tmp_path / "s.npz", torch.zeros(20, 1, 28, 28), torch.arange(20) % 10)
    assert main(["evaluate", str(tmp_path / "s.npz"), *OPTIONS, "--json"]) == 0
    printed = capsys.readouterr()
    assert "warning: label agreement 0.100 is at chance, 1 of 10 classes" in printed.err
    found = json.loads(printed.out)
    without = [name for name, value in found.items() if value is None]
    assert [note.split()[0] for note in found.get("notes", ())] == without


def test_a_number_that_is_none_is_null_with_a_note(tmp_path, capsys, few_steps, monkeypatch):
    monkeypatch.setattr(report, "kernel_distance", lambda *of: float("nan"))
    write_samples(tmp_path / "s.npz", torch.rand(20, 1, 28, 28) / 4, torch.arange(20) % 10)
    found = measured(capsys, tmp_path / "s.npz", *OPTIONS)
    assert found["kernel_distance"] is None
    assert found["notes"] == ["kernel_distance is nan: undefined, or beyond every number"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images, labels: (1 - images, labels), "ink and paper are swapped"),
        (lambda images, labels: (images, labels + 1), "labels=[10] must occur among the held-out"),
        (lambda images, labels: (images.expand(-1, 3, -1, -1), labels), "(300, 3, 28, 28)"),
    ],
    ids=["inverted", "class 10", "colours"],
)
def test_samples_of_another_kind_than_the_images_are_refused(
    tmp_path, capsys, few_steps, change, said
):
    held_out = open_source(DataSettings(classes="digits")).held_out()
    images, labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
    write_samples(tmp_path / "s.npz", *change(images, labels))
    assert main(["evaluate", str(tmp_path / "s.npz"), *OPTIONS]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"evaluating {tmp_path / 's.npz'}: " in line
    assert said in line

"""``fed-gswgan prior``: a small prior is made, opened by a run's settings, and shown."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load

from fed_gswgan.cli import main
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.evaluation.samplers import read_samples
from fed_gswgan.priors import training
from fed_gswgan.priors.prior import (
    ABOUT,
    JUDGE,
    SHIPPED,
    PriorSettings,
    open_features,
    open_prior,
)  # fmt: skip

STEPS = ["--generator-steps", "10", "--critic-steps", "10", "--feature-steps", "10"]


@pytest.fixture(autouse=True)
def small(monkeypatch, few_drawings):
    from fed_gswgan.commands import prior as command

    monkeypatch.setattr(command, "MOST_A_CLASS", 6)
    few_drawings(12)
    monkeypatch.setattr(training, "BATCH_SIZE", 4)
    monkeypatch.setattr(training, "READING_BATCH_SIZE", 8)


def test_drawn_digits_make_a_prior(tmp_path, capsys):
    folder = tmp_path / "made"
    sizes = ["--feature-width", "2", "--components", "5"]
    assert main(["prior", "train", "--output", str(folder), *STEPS, *sizes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prior"] == f"folder:{folder}"
    assert found["steps"] == {"generator": 10, "critic": 10, "features": 10}
    digits = tuple("0123456789")
    spec = DataSpec((1, 28, 28), 10, digits)
    opened = open_prior(PriorSettings(prior=found["prior"]), spec)
    assert opened.pool().shape == (10, 12, 28, 28)
    settings = PriorSettings(features=f"file:{folder}/features.safetensors", feature_components=5)
    assert open_features(settings, spec).size(spec.image_shape) == 49 + 5
    assert main(["prior", "train", "--output", str(folder)]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err

    sheet = tmp_path / "sheet.png"
    assert main(["prior", "show", found["prior"], "--output", str(sheet)]) == 0
    assert Image.open(sheet).size == (24 * 30 + 2, 10 * 30 + 2)

    file = tmp_path / "samples.npz"
    assert main(["prior", "show", found["prior"], "--output", str(file)]) == 0
    samples, labels = read_samples(file)
    assert samples.shape == (10_000, 1, 28, 28)
    assert labels.bincount().tolist() == [1000] * 10


def test_a_second_judge_is_made_as_the_one_that_ships(tmp_path, capsys):
    folder = tmp_path / "judge"
    assert main(["prior", "judge", "--output", str(folder), "--steps", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shipped = json.loads((SHIPPED / "judge" / ABOUT).read_text())
    assert found["class-names"] == shipped["class-names"]
    assert (found["steps"], found["seed"]) == (10, shipped["seed"])
    made = load((folder / JUDGE).read_bytes())
    there = load((SHIPPED / "judge" / JUDGE).read_bytes())
    assert {n: t.shape for n, t in made.items()} == {n: t.shape for n, t in there.items()}
    assert main(["prior", "judge", "--output", str(folder)]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err


def test_images_of_a_folder_make_a_prior(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for writer, name, count in (("ann", "cat", 3), ("bob", "cat", 1), ("bob", "dog", 2)):
        folder = tmp_path / "images" / writer / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.full((28, 28), 255, np.uint8)
            pixels[10:18, 10:18] = rng.integers(0, 200, (8, 8))
            Image.fromarray(pixels).save(folder / f"{number}.png")
    output = str(tmp_path / "pets")
    images = ["--images", str(tmp_path / "images")]
    assert main(["prior", "train", "--output", output, *images, *STEPS[:4], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["class-names"]) == ("images", ["cat", "dog"])
    opened = open_prior(
        PriorSettings(prior=f"folder:{output}"), DataSpec((1, 28, 28), 2, ("cat", "dog"))
    )
    pool = opened.pool()
    assert pool.shape == (2, 4, 28, 28)
    assert len({image.numpy().tobytes() for image in pool[1]}) == 2  # two dogs, each twice


def test_what_cannot_be_shown_is_refused(tmp_path, capsys):
    assert main(["prior", "show", "--output", str(tmp_path / "x.jpg")]) == 2
    assert "must end in .png" in capsys.readouterr().err
    assert main(["prior", "show", "none", "--output", str(tmp_path / "x.png")]) == 2
    assert "prior=none has nothing to show" in capsys.readouterr().err

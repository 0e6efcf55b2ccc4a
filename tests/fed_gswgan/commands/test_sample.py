import json

import numpy as np
import pytest

from fed_gswgan.cli import main
from fed_gswgan.evaluation.samplers import read_samples


def test_samples_of_the_classes_asked_for_are_written(small_run, tmp_path, capsys):
    run = small_run(rounds=1)
    capsys.readouterr()
    output = tmp_path / "out" / "drawn.npz"
    options = ["--labels", "7,1", "--count", "3", "--output", str(output), "--json"]
    assert main(["sample", str(run), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["labels"], found["round"]) == (6, [7, 1], 1)
    samples, labels = read_samples(output)
    assert labels.tolist() == [7, 7, 7, 1, 1, 1]
    assert samples.shape == (6, 1, 28, 28)
    assert len(np.unique(samples[:, 0].numpy().reshape(6, -1), axis=0)) == 6


def test_one_seed_draws_the_same_and_another_others(small_run, tmp_path):
    run = small_run(rounds=1)
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        output = str(tmp_path / f"{name}.npz")
        assert main(["sample", str(run), "--count", "1", "--seed", seed, "--output", output]) == 0
    first, same, other = (read_samples(tmp_path / f"{name}.npz").samples_NCHW for name in "abc")
    assert first.equal(same)
    assert not first.equal(other)


def test_a_picture_has_a_row_for_each_class_beside_its_name(small_run, tmp_path):
    from PIL import Image

    run = small_run(rounds=1)
    output = tmp_path / "drawn.png"
    options = ["--labels", "0,1,2", "--count", "4", "--output", str(output)]
    assert main(["sample", str(run), *options]) == 0
    with Image.open(output) as picture:
        assert picture.size == (2 * (4 * 30 + 2) + 100, 2 * (3 * 30 + 2))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--labels", "10"], "labels='10' must be in 0 .. 9"),
        (["--labels", "one"], "labels='one' must be in 0 .. 9 or one of 0, 1, 2"),
        (["--count", "0"], "'--count': 0"),
        (["--output", "drawn.jpg"], "must end in .npz or .png"),
    ],
)
def test_nonsense_is_named(small_run, capsys, options, named):
    assert main(["sample", str(small_run(rounds=1)), *options]) == 2
    assert named in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main(["sample", str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err

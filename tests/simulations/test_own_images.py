"""Whole simulations of a user's own pictures: names of classes, and data that has changed."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from fed_gswgan.cli import main
from tests.conftest import SMALL

NAMES = ("2", "10", "apple", "\u00c4pfel")  # in natural order
WRITERS = ("O'Brien & S\u00f6hne", "a\nb", "-rf", "x\t\U0001f600", "w" * 200, "[red]", "eve")


def draw(folder, seed, count=3):
    folder.mkdir(parents=True)
    for number in range(count):
        ink = np.random.default_rng([seed, number]).integers(0, 255, (12, 12), np.uint8)
        image = Image.new("L", (28, 28), 255)
        image.paste(Image.fromarray(ink), (8, 8))
        image.save(folder / f"{number}.png")


@pytest.fixture
def data(tmp_path):
    for seed, writer in enumerate(WRITERS):
        for number, name in enumerate(NAMES):
            draw(tmp_path / "data" / writer / unicodedata.normalize("NFD", name), [seed, number])
    return tmp_path / "data"


def run(data, folder):
    settings = {k: v for k, v in SMALL.items() if k not in ("classes", "max-clients")}
    settings |= {"dataset": "folder", "data-dir": str(data), "rounds": 1}
    words = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    return main(["run", *words, "--runtime", "in-process", "--workers", "1", "--output", folder])


def resumed(folder):
    more = ["--set", "rounds=2", "--runtime", "in-process", "--workers", "1"]
    return main(["resume", folder, *more])


def test_names_of_classes_and_writers_go_through_a_run_as_they_are(data, tmp_path, capfd):
    folder = tmp_path / "run"
    assert run(data, str(folder)) == 0
    said = capfd.readouterr().err
    assert "data: 7 writers, 4 classes" in said
    assert "held out for evaluation: " in said
    for file in ("run.json", "checkpoint/checkpoint.json"):
        assert json.loads((folder / file).read_text())["class_names"] == list(NAMES)
    drawn = tmp_path / "drawn.npz"
    words = ["--labels", "apple,\u00c4pfel,1", "--count", "2", "--output", str(drawn), "--json"]
    assert main(["sample", str(folder), *words]) == 0
    assert json.loads(capfd.readouterr().out)["classes"] == ["apple", "\u00c4pfel", "10"]
    with np.load(drawn) as file:
        assert file["class_names"].tolist() == list(NAMES)
        assert file["labels"].tolist() == [2, 2, 3, 3, 1, 1]


def test_a_run_goes_on_with_the_same_data_alone_and_says_what_changed(data, tmp_path, capfd):
    folder = str(tmp_path / "run")
    assert run(data, folder) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    image, apples = data / "eve" / "10" / "0.png", data / "eve" / "apple"
    content = image.read_bytes()
    draw(tmp_path / "other", 99)

    def changed(edit, undo, said):
        edit()
        assert resumed(folder) == 2
        assert said in capfd.readouterr().out
        assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
        undo()

    replace = (tmp_path / "other" / "0.png").read_bytes()
    changed(
        lambda: image.write_bytes(replace),
        lambda: image.write_bytes(content),
        "images changed of 'eve'; bring the data back",
    )
    changed(
        lambda: draw(data / "zoe" / "apple", 100),
        lambda: (data / "zoe").rename(tmp_path / "zoe"),
        "writer added 'zoe'",
    )
    changed(
        lambda: apples.rename(data / "eve" / "pear"),
        lambda: (data / "eve" / "pear").rename(apples),
        "class added 'pear'",
    )
    changed(
        lambda: (data / "eve").rename(tmp_path / "eve"),
        lambda: (tmp_path / "eve").rename(data / "eve"),
        "writer missing 'eve'",
    )
    assert resumed(folder) == 0


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_wrong_picture_ends_a_run_before_it_begins(data, tmp_path, capfd, content):
    (data / "eve" / "10" / "0.png").write_bytes(content)
    assert run(data, str(tmp_path / "run")) == 2
    assert "eve/10/0.png: is a" in capfd.readouterr().out
    assert not (tmp_path / "run").exists()

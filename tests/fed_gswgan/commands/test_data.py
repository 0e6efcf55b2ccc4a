import json

import h5py
import numpy as np
import pytest
from PIL import Image

from fed_gswgan.cli import main


def test_a_data_set_is_described_in_lines(capsys):
    assert main(["data", "show", "digits", "--classes", "digits"]) == 0
    out = capsys.readouterr().out
    assert "clients: 14" in out
    assert "held_out_images: 300" in out


def test_a_missing_data_set_says_what_to_set(capsys, monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    assert main(["data", "show", "fed-emnist"]) == 2
    assert "FED_GSWGAN_DATA" in capsys.readouterr().err


WRITERS = ("ada", "bob", "cleo")


@pytest.fixture
def folder(tmp_path):
    for number, writer in enumerate(WRITERS):
        for name in ("apple", "pear"):
            (tmp_path / "own" / writer / name).mkdir(parents=True)
            image = Image.new("L", (28, 28), 255)
            image.paste(0, (10, 10, 15 + number, 15 + len(name)))
            image.save(tmp_path / "own" / writer / name / "1.png")
    (tmp_path / "own" / "Thumbs.db").write_text("")
    return tmp_path / "own"


def test_a_check_counts_and_draws_what_was_read(folder, tmp_path, capsys):
    picture = tmp_path / "sheet.png"
    assert main(["data", "check", str(folder), "--picture", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images_of_class"] == {"apple": 3, "pear": 3}
    assert sorted(row["writer"] for row in found["writers"]) == list(WRITERS)
    assert all((row["images"], row["apple"]) == (2, 1) for row in found["writers"])
    assert len(found["held_out_writers"]) == 1
    assert "Thumbs.db" in found["notes"][0]
    with Image.open(picture) as drawn:
        assert (np.asarray(drawn.convert("L")) < 50).sum() > 500


def test_a_check_tells_a_person_the_same(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    for said in ("3 writers, 2 classes", "images: 6, of them blank: 0", "class 'apple': 3",
                 "writer 'bob': 2", "held out for evaluation: '", "skipped"):  # fmt: skip
        assert said in out


def test_a_check_ends_at_the_first_wrong_file(folder, capsys):
    (folder / "bob" / "pear" / "2.png").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 2
    assert "bob/pear/2.png: is an empty file" in capsys.readouterr().err
    assert main(["data", "check", str(folder / "none")]) == 2
    assert "none must be a folder" in capsys.readouterr().err
    assert main(["data", "check", str(folder), "--picture", "sheet.jpg"]) == 2


def test_files_of_other_layouts_are_told_by_their_names(tmp_path, capsys):
    (tmp_path / "h5" / "FedEMNIST").mkdir(parents=True)
    pixels = np.random.default_rng(0).random((3, 4, 28, 28))
    pixels[:, :, (0, -1)], pixels[:, :, :, (0, -1)] = 1, 1
    for part in ("train", "test"):
        with h5py.File(tmp_path / f"h5/FedEMNIST/fed_emnist_{part}.h5", "w") as file:
            for writer, of in zip(WRITERS, pixels, strict=True):
                file[f"examples/{writer}/pixels"] = of
                file[f"examples/{writer}/label"] = np.arange(4)
    (tmp_path / "leaf").mkdir()
    rows = pixels.reshape(3, 4, 784).tolist()
    users = {w: {"x": x, "y": [0, 1, 2, 3]} for w, x in zip(WRITERS, rows, strict=True)}
    content = {"users": WRITERS, "num_samples": [4, 4, 4], "user_data": users}
    (tmp_path / "leaf" / "a.json").write_text(json.dumps(content))
    for name, dataset in (("h5", "fed-emnist"), ("leaf", "leaf-femnist")):
        assert main(["data", "check", str(tmp_path / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["dataset"], found["images"]) == (dataset, 12)

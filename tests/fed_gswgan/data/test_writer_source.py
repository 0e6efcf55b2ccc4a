import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fed_gswgan.data.registry import DATASETS, DataSettings, open_source


def test_digits_open_without_any_setting():
    source = open_source(DataSettings())
    assert source.name == "digits"
    assert len(source.writer_ids) == 14


@pytest.mark.parametrize("dataset", ["fed-emnist", "qmnist"])
def test_real_sets_open_from_the_environments_folder(real_data, dataset):
    source = open_source(DataSettings(dataset=dataset, min_images_per_writer=60))
    assert source.name == dataset
    assert not set(source.writer_ids) & set(source.held_out_writers)


def test_a_folder_opens_from_the_setting(tmp_path):
    for writer in ("ada", "bob"):
        (tmp_path / writer / "tick").mkdir(parents=True)
        Image.new("L", (5, 5), 255).save(tmp_path / writer / "tick" / "a.png")
    source = open_source(DataSettings(dataset="folder", data_dir=str(tmp_path)))
    assert source.name == "folder"
    assert len(source.shard(source.writer_ids[0]).labels) == 1


def folder_of_classes(root, count):
    picture = Image.new("L", (5, 5), 255)
    for number in range(count):
        folder = root / ("ada", "bob")[number % 2] / f"{number:03d}"
        folder.mkdir(parents=True)
        picture.save(folder / "a.png")
    return DataSettings(dataset="folder", data_dir=str(root))


def test_as_many_classes_as_a_byte_can_name_are_accepted_and_one_more_is_refused(tmp_path):
    assert len(open_source(folder_of_classes(tmp_path / "most", 256)).class_names) == 256
    with pytest.raises(ValueError, match="dataset=folder has 257 classes, must be <= 256"):
        open_source(folder_of_classes(tmp_path / "more", 257))


@pytest.mark.parametrize(
    "dataset", [name for name in DATASETS if name not in ("digits", "devices")]
)
def test_every_other_set_says_what_it_misses(monkeypatch, tmp_path, dataset):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    config = DataSettings(dataset=dataset, data_dir=str(tmp_path))
    with pytest.raises((FileNotFoundError, ValueError, ModuleNotFoundError), match=r"\w+.*: |must"):
        open_source(config)


def test_importing_the_sources_loads_neither_flower_nor_torch():
    code = (
        "import sys, fed_gswgan.data.registry, fed_gswgan.data.partition\n"
        "print(sorted({'flwr', 'torch', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"

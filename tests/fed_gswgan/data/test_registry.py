import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec, spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import DATASETS, DataSettings, is_swapped, open_source

PLAIN = open_source(DataSettings(classes="digits"))


@pytest.mark.parametrize("dataset", ["fed-emnist", "qmnist"])
def test_real_sets_open_from_the_environments_folder(fed_gswgan_data, dataset):
    source = open_source(DataSettings(dataset=dataset, min_images_per_writer=60))
    assert source.name == dataset
    assert not set(source.writer_ids) & set(source.held_out_writers)


def folder_of_classes(root, count):
    for number in range(count):
        folder = root / ("ada", "bob")[number % 2] / f"{number:03d}"
        folder.mkdir(parents=True)
        Image.new("L", (5, 5), 255).save(folder / "a.png")
    return DataSettings(dataset="folder", data_dir=str(root))


def test_a_label_is_a_byte_so_256_classes_are_the_most(tmp_path):
    source = open_source(folder_of_classes(tmp_path / "most", 256))
    assert spec_of(source) == DataSpec((1, 28, 28), 256, source.class_names)
    with pytest.raises(ValueError, match="dataset=folder has 257 classes, must be <= 256"):
        open_source(folder_of_classes(tmp_path / "more", 257))


@pytest.mark.parametrize(
    "dataset", [name for name in DATASETS if name not in ("writers", "digits", "drawn", "devices")]
)
def test_every_other_set_says_what_is_missing(monkeypatch, tmp_path, dataset):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    config = DataSettings(dataset=dataset, data_dir=str(tmp_path))
    with pytest.raises((FileNotFoundError, ValueError, ModuleNotFoundError), match=r"\w+.*: |must"):
        open_source(config)


def test_importing_the_sources_loads_neither_flower_nor_torch():
    code = (
        "import sys, fed_gswgan.data.registry, fed_gswgan.data.partition\n"
        "print(sorted({'flwr', 'torch', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


DEVICES = {"dataset": "devices", "max-clients": 3, "evaluation-samples": 0}


def test_of_devices_the_server_knows_classes_and_number_and_no_image():
    config = Config.from_table(DEVICES | {"classes": "digits"})
    source = open_source(config.shared)
    assert source.class_names == tuple("0123456789")
    assert len(partitions_of(source, config.shared)) == 3
    with pytest.raises(ValueError, match="on its device alone"):
        source.shard("device-0")
    with pytest.raises(ValueError, match="no image is held out"):
        source.held_out()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"max-clients": 0}, "max-clients=0 must be the number of devices"),
        ({"evaluation-samples": 100}, "evaluation-samples=100 must be 0"),
    ],
)
def test_settings_that_devices_cannot_satisfy_are_refused(settings, rule):
    with pytest.raises(ValueError, match=rule):
        Config.from_table(DEVICES | settings)


def test_ink_and_paper_are_swapped_for_the_share_of_writers():
    altered = open_source(DataSettings(classes="digits", swapped_share=0.5))
    swapped = [writer for writer in altered.writer_ids if is_swapped(writer, 0.5)]
    assert 0 < len(swapped) < len(altered.writer_ids)
    for writer in altered.writer_ids:
        images = PLAIN.shard(writer).images
        expected = 1 - images if writer in swapped else images
        assert np.array_equal(altered.shard(writer).images, expected)
    assert np.array_equal(altered.held_out().images, PLAIN.held_out().images)


def test_a_larger_share_swaps_more_writers():
    writers = [f"writer {i}" for i in range(2000)]
    few = {writer for writer in writers if is_swapped(writer, 0.2)}
    assert len(few) == pytest.approx(400, abs=80)
    assert few < {writer for writer in writers if is_swapped(writer, 0.6)}
    assert not any(is_swapped(writer, 0.0) for writer in writers)
    assert all(is_swapped(writer, 1.0) for writer in writers)


def of_writers(path, text):
    path.write_text(text)
    return open_source(DataSettings(classes="digits", writers_file=str(path)))


def test_a_file_of_ids_chooses_the_writers_in_the_order_of_the_source(tmp_path):
    source = of_writers(tmp_path / "writers.txt", "block-05\nblock-02\n")
    assert source.writer_ids == ("block-02", "block-05")
    assert source.class_names == PLAIN.class_names
    with pytest.raises(ValueError, match="'block-01' is none of the chosen"):
        source.shard("block-01")
    with pytest.raises(ValueError, match="'unknown'"):
        of_writers(tmp_path / "writers.txt", "block-02\nunknown\n")
    with pytest.raises(ValueError, match="at least one writer"):
        of_writers(tmp_path / "writers.txt", "\n")

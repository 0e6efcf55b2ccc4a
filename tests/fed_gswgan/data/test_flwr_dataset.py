import sys

import pytest
from PIL import Image

from fed_gswgan.data.flwr_dataset import open_flwr_femnist, source_of_rows

WRITERS = [f"f{number:04d}_10" for number in range(6)]


class Table:
    """The two ways in which the source reads a table, and a count of decoded images."""

    def __init__(self, rows):
        self.rows = rows
        self.rows_read = 0

    def __getitem__(self, key):
        if isinstance(key, str):
            assert key != "image", "a whole column of images must not be decoded"
            return [row[key] for row in self.rows]
        self.rows_read += 1
        return self.rows[key]


def row(writer, character, ink=1, size=(28, 28)):
    image = Image.new("RGB", size, "white")
    for x in range(ink):
        image.putpixel((x, 0), (0, 0, 0))
    return {"image": image, "writer_id": writer, "hsf_id": 0, "character": character}


def table():
    return Table([row(w, character, 1 + i) for i, character in enumerate((0, 61)) for w in WRITERS])


def test_rows_are_grouped_by_writer_with_ink_one():
    source = source_of_rows(table(), "all", 2)
    assert sorted(source.writer_ids + source.held_out_writers) == WRITERS
    shard = source.shard(source.writer_ids[0])
    assert shard.labels.tolist() == [0, 61]
    assert shard.images.sum(axis=(1, 2, 3)).tolist() == [1, 2]
    assert shard.images[1, 0, 0, :3].tolist() == [1, 1, 0]


def test_images_are_decoded_when_a_shard_is_read():
    rows = table()
    source = source_of_rows(rows, "all", 1)
    assert rows.rows_read == 0
    source.shard(source.writer_ids[0])
    assert rows.rows_read == 2


def test_the_minimum_counts_the_chosen_classes():
    assert source_of_rows(table(), "digits", 1).class_names == tuple("0123456789")
    with pytest.raises(ValueError, match="0 of 6 writers"):
        source_of_rows(table(), "digits", 2)


def test_wrong_content_is_refused_with_the_writer():
    with pytest.raises(ValueError, match=r"writer_id=f0000_10: label 62 must be 0\.\.61"):
        source_of_rows(Table([row(WRITERS[0], 62), row(WRITERS[1], 0)]), "all", 1)
    source = source_of_rows(Table([row(w, 0, size=(32, 28)) for w in WRITERS]), "all", 1)
    with pytest.raises(ValueError, match=r"images must be 28x28, not \[\(28, 32\)\]"):
        source.shard(source.writer_ids[0])


def test_a_missing_extra_is_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[flwr-datasets\]'"):
        open_flwr_femnist("all", 1)

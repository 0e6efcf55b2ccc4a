import numpy as np
import pytest

from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.held_out import SplitSource


def open_people(count=20, minimum=1, counts=None):
    read_writers = []

    def read(writer_id):
        read_writers.append(writer_id)
        pixels = np.full((2, 1, 28, 28), int(writer_id) / 100, dtype=np.float32)
        return LabelledImages(pixels, np.array([0, 1], dtype=np.int64), f"writer {writer_id}")

    source = SplitSource(
        name="people",
        unit="one person",
        image_shape=(1, 28, 28),
        class_names=("a", "b"),
        image_counts=counts or {f"{number:02d}": 2 for number in range(count)},
        min_images_per_writer=minimum,
        read=read,
    )
    return source, read_writers


def test_opening_reads_nobody_and_a_shard_reads_one_writer():
    source, read_writers = open_people()
    assert len(source.writer_ids) + len(source.held_out_writers) == 20
    assert read_writers == []
    shard = source.shard(source.writer_ids[3])
    assert read_writers == [source.writer_ids[3]]
    assert shard.writer_ids == (source.writer_ids[3],)


def test_held_out_images_are_those_of_the_held_out_writers_alone():
    source, read_writers = open_people()
    images = source.held_out().images
    assert tuple(read_writers) == source.held_out_writers
    written_by = {round(float(value) * 100) for value in images[:, 0, 0, 0]}
    assert written_by == {int(writer) for writer in source.held_out_writers}


def test_a_held_out_writer_has_no_shard():
    source, _ = open_people()
    with pytest.raises(ValueError, match="held out"):
        source.shard(source.held_out_writers[0])


def test_an_unknown_writer_has_no_shard():
    source, _ = open_people()
    with pytest.raises(ValueError, match="'99' has no shard, being unknown"):
        source.shard("99")


def test_an_impossible_minimum_is_refused_at_opening():
    with pytest.raises(ValueError, match="min-images-per-writer=3"):
        open_people(minimum=3)


def test_its_text_shows_no_counts():
    assert repr(open_people()[0]) == "SplitSource('people')"

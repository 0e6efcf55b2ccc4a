import numpy as np
import pytest

from fed_gswgan.data.drawn import MEDIAN_IMAGES, open_drawn
from fed_gswgan.data.registry import DataSettings, open_source


@pytest.fixture(scope="module")
def source():
    return open_drawn(60, "digits", 1)


def test_a_writer_draws_the_same_images_in_every_federation(source):
    writer = source.writer_ids[3]
    first, larger = source.shard(writer), open_drawn(200, "digits", 5).shard(writer)
    assert np.array_equal(first.images, larger.images)
    assert np.array_equal(first.labels, larger.labels)
    others = [source.shard(other) for other in source.writer_ids[4:8]]
    assert all(first.images[0].tobytes() != other.images[0].tobytes() for other in others)


def test_writers_hold_unlike_numbers_of_images_and_some_are_held_out(source):
    counts = [len(source.shard(writer).labels) for writer in source.writer_ids]
    assert np.median(counts) == pytest.approx(MEDIAN_IMAGES, rel=0.4)
    assert max(counts) > 4 * min(counts)
    assert len(source.writer_ids) + len(source.held_out_writers) == 60
    assert 0 < len(source.held_out_writers) < 15
    assert source.held_out().labels.max() <= 9


def test_a_writer_has_a_style(source):
    """Pens differ more between writers than within one."""
    ink = [
        [image[image > 0].mean() * np.sqrt((image > 0).sum()) for image in source.shard(w).images]
        for w in source.writer_ids
    ]
    within = np.mean([np.var(values) for values in ink if len(values) > 2])
    between = np.var([np.mean(values) for values in ink])
    assert between > within


def test_letters_and_the_number_of_writers_are_settings():
    settings = DataSettings(dataset="drawn", classes="all", drawn_writers=9)
    source = open_source(settings)
    assert len(source.class_names) == 62
    assert len(source.writer_ids) + len(source.held_out_writers) == 9
    (shard,) = (source.shard(writer) for writer in source.writer_ids[:1])
    assert shard.images.shape[1:] == source.image_shape

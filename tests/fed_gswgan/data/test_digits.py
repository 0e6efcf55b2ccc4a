import numpy as np
import pytest
from sklearn.datasets import load_digits

from fed_gswgan.data.digits import BLOCK_STARTS, DigitsSource, enlarge, held_out_rows


@pytest.fixture(scope="module")
def source():
    return DigitsSource("all", 1)


def hashes(images):
    return [image.tobytes() for image in images]


def test_held_out_images_are_in_no_shard_and_none_is_lost(source):
    held_out = hashes(source.held_out().images)
    shards = [
        image for writer in source.writer_ids for image in hashes(source.shard(writer).images)
    ]
    assert len(held_out) == len(set(held_out)) == 300
    assert len(shards) == len(set(shards)) == 1797 - 300
    assert not set(held_out) & set(shards)
    assert np.bincount(source.held_out().labels).tolist() == [30] * 10
    assert hashes(DigitsSource("digits", 1).held_out().images) == held_out


def test_every_block_gives_images_to_the_held_out_set():
    rows = held_out_rows(load_digits().target)
    blocks = np.searchsorted(BLOCK_STARTS, rows, side="right") - 1
    assert np.bincount(blocks, minlength=14).min() >= 10


def test_there_are_fourteen_clients_and_no_held_out_writer(source):
    assert len(source.writer_ids) == 14
    assert source.held_out_writers == ()
    assert source.class_names == tuple("0123456789")
    assert source.shard("block-01").labels[:3].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="block-15"):
        source.shard("block-15")
    with pytest.raises(ValueError, match="classes="):
        DigitsSource("letters", 1)


def test_a_shard_has_all_classes_and_is_ink_on_paper(source):
    for writer in source.writer_ids:
        shard = source.shard(writer)
        assert set(shard.labels) == set(range(10))
        assert 0.05 < shard.images.mean() < 0.3


def test_enlarging_keeps_paper_black_corners_empty_and_ink_where_it_was():
    image = np.zeros((1, 8, 8))
    image[0, 0, 4] = 16
    enlarged = enlarge(image)
    assert enlarged.shape == (1, 1, 28, 28)
    assert enlarge(np.zeros((1, 8, 8))).max() == 0
    assert np.unravel_index(enlarged[0, 0].argmax(), (28, 28)) == (5, 15)
    assert enlarge(np.full((1, 8, 8), 16))[0, 0, 6:22, 6:22].min() == pytest.approx(1, abs=1e-6)


def test_the_minimum_counts_a_blocks_images_without_the_held_out_ones(source):
    sizes = {writer: len(source.shard(writer).labels) for writer in source.writer_ids}
    strict = DigitsSource("all", 105)
    assert strict.writer_ids == tuple(writer for writer, size in sizes.items() if size >= 105)
    assert 0 < len(strict.writer_ids) < 14
    with pytest.raises(ValueError, match=f"the largest has {max(sizes.values())}"):
        DigitsSource("all", 1000)

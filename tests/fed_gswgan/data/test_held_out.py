import numpy as np
import pytest

from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.held_out import SplitSource, fixed_fraction, split_writers


def writers(count, images=100):
    return {f"f{number:04d}_00": images for number in range(count)}


@pytest.mark.parametrize("count", [2, 3, 10, 40, 500])
def test_every_writer_is_either_client_or_held_out_and_both_exist(count):
    split = split_writers(writers(count), 1, "here")
    assert split.clients
    assert split.held_out
    assert sorted(split.clients + split.held_out) == sorted(writers(count))


def test_about_a_tenth_is_held_out():
    assert 0.08 < len(split_writers(writers(2000), 1, "here").held_out) / 2000 < 0.12


def test_writers_below_the_minimum_are_left_out():
    split = split_writers({**writers(50), "small": 59, "enough": 60}, 60, "here")
    assert "enough" in split.clients + split.held_out
    assert "small" not in split.clients + split.held_out


def test_neither_minimum_nor_order_turns_a_held_out_writer_into_a_client():
    counts = {writer: 20 + number for number, writer in enumerate(writers(400))}
    loose, strict = (split_writers(counts, minimum, "here") for minimum in (1, 200))
    assert not set(loose.held_out) & set(strict.clients)
    assert not set(strict.held_out) & set(loose.clients)
    assert split_writers(dict(reversed(counts.items())), 1, "here") == loose


def test_the_choice_is_the_same_on_every_machine():
    assert split_writers(writers(30), 1, "here").held_out == ("f0016_00", "f0022_00")
    assert fixed_fraction("held-out writer f2103_07") == pytest.approx(0.6719105819064, abs=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_writers_are_refused_with_the_numbers(count):
    with pytest.raises(ValueError, match=f"here: {count} of .*min-images-per-writer=60"):
        split_writers({**writers(count), "small": 1}, 60, "here")


def open_writers(minimum=1):
    read_writers = []

    def read(writer_id):
        read_writers.append(writer_id)
        pixels = np.full((2, 1, 4, 4), int(writer_id) / 100, dtype=np.float32)
        return LabelledImages(pixels, np.array([0, 1], dtype=np.int64), f"writer {writer_id}")

    source = SplitSource(
        name="letters",
        unit="one writer",
        image_shape=(1, 4, 4),
        class_names=("a", "b"),
        image_counts={f"{number:02d}": 2 for number in range(20)},
        min_images_per_writer=minimum,
        read=read,
    )
    return source, read_writers


def test_a_shard_reads_one_writer_and_the_held_out_images_are_of_the_others():
    source, read_writers = open_writers()
    assert len(source.writer_ids) + len(source.held_out_writers) == 20
    assert read_writers == []
    assert source.shard(source.writer_ids[3]).writer_ids == (source.writer_ids[3],)
    assert read_writers == [source.writer_ids[3]]
    written_by = {round(float(value) * 100) for value in source.held_out().images[:, 0, 0, 0]}
    assert tuple(read_writers[1:]) == source.held_out_writers
    assert written_by == {int(writer) for writer in source.held_out_writers}
    assert repr(source) == "SplitSource('letters')"


def test_writers_without_a_shard_are_refused_with_the_reason():
    source, _ = open_writers()
    with pytest.raises(ValueError, match="held out"):
        source.shard(source.held_out_writers[0])
    with pytest.raises(ValueError, match="'99' has no shard, being unknown"):
        source.shard("99")
    with pytest.raises(ValueError, match="min-images-per-writer=3"):
        open_writers(minimum=3)


def test_with_a_minimum_of_0_a_writer_without_images_has_an_empty_shard():
    counts = {**writers(30, 1), "empty": 0}

    def read(writer):
        count = counts[writer]
        return LabelledImages(np.zeros((count, 1, 4, 4), np.float32), np.zeros(count, np.int64))

    def source(counts, minimum):
        return SplitSource(
            name="some", unit="one writer", image_shape=(1, 4, 4), class_names=("0",),
            image_counts=counts, min_images_per_writer=minimum, read=read,
        )  # fmt: skip

    roster = source(counts, 0)
    assert "empty" in roster.writer_ids
    assert roster.shard("empty").images.shape == (0, 1, 4, 4)
    assert "empty" not in source(counts, 1).writer_ids
    counts = dict.fromkeys(writers(30), 0)
    with pytest.raises(ValueError, match="raise min-images-per-writer=0, or choose other classes"):
        source(counts, 0).held_out()

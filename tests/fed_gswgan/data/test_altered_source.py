import numpy as np
import pytest

from fed_gswgan.data.registry import DataSettings, is_swapped, open_source

PLAIN = open_source(DataSettings(classes="digits"))


def test_ink_and_paper_are_swapped_for_the_share_and_nobody_else():
    altered = open_source(DataSettings(classes="digits", swapped_share=0.5))
    swapped = [writer for writer in altered.writer_ids if is_swapped(writer, 0.5)]
    assert 0 < len(swapped) < len(altered.writer_ids)
    for writer in altered.writer_ids:
        images = PLAIN.shard(writer).images
        expected = 1 - images if writer in swapped else images
        assert np.array_equal(altered.shard(writer).images, expected)
    assert np.array_equal(altered.held_out().images, PLAIN.held_out().images)


def test_about_the_share_of_many_writers_is_swapped_and_more_with_a_larger_share():
    writers = [f"writer {i}" for i in range(2000)]
    few = {writer for writer in writers if is_swapped(writer, 0.2)}
    many = {writer for writer in writers if is_swapped(writer, 0.6)}
    assert len(few) == pytest.approx(400, abs=80)
    assert few < many
    assert not any(is_swapped(writer, 0.0) for writer in writers)
    assert all(is_swapped(writer, 1.0) for writer in writers)


def test_a_file_of_ids_chooses_the_writers_in_the_order_of_the_source(tmp_path):
    named = tmp_path / "writers.txt"
    named.write_text("block-05\nblock-02\n")
    source = open_source(DataSettings(classes="digits", writers_file=str(named)))
    assert source.writer_ids == ("block-02", "block-05")
    assert source.class_names == PLAIN.class_names
    with pytest.raises(ValueError, match="'block-01' is none of the chosen"):
        source.shard("block-01")


@pytest.mark.parametrize(
    ("text", "named"), [("block-02\nnobody\n", "'nobody'"), ("\n", "at least one writer")]
)
def test_a_file_that_names_nobody_or_a_stranger_is_refused(tmp_path, text, named):
    path = tmp_path / "writers.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=named):
        open_source(DataSettings(classes="digits", writers_file=str(path)))

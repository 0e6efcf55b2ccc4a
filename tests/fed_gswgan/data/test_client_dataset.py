import numpy as np
import pytest

from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages


def images(count=2, value=0.5):
    return np.full((count, 3, 4, 6), value, dtype=np.float32)


def labels(*values):
    return np.array(values or (0, 1), dtype=np.int64)


@pytest.mark.parametrize("text", [repr, str])
def test_text_shows_neither_writer_nor_count_nor_pixel(text):
    assert text(ClientDataset(("f0001_41",), images(), labels())) == "ClientDataset(private)"
    assert text(LabelledImages(images(), labels())) == "LabelledImages(private)"


@pytest.mark.parametrize(
    ("pixels", "numbers", "rule"),
    [
        (images().astype(np.float64), labels(), "float32"),
        (images(), labels().astype(np.int32), "int64"),
        (images()[:, 0], labels(), r"\(N, C, H, W\).*\(2, 4, 6\)"),
        (images(), labels(1, 2, 3), r"\(3,\)"),
        (images(value=1.5), labels(), r"\[0, 1\].*1.5"),
        (images(value=-0.5), labels(), r"\[0, 1\].*-0.5"),
        (images(value=np.nan), labels(), "nan"),
        (images(), labels(0, -1), "label -1 must be >= 0"),
    ],
)
def test_wrong_content_is_refused_with_the_writer_and_the_rule(pixels, numbers, rule):
    with pytest.raises(ValueError, match=f"writer f0001_41: .*{rule}"):
        ClientDataset(("f0001_41",), pixels, numbers)
    with pytest.raises(ValueError, match=f"some file: .*{rule}"):
        LabelledImages(pixels, numbers, "some file")


def test_a_client_may_hold_no_image_at_all():
    empty = ClientDataset(("f0001_41",), images(0), labels()[:0])
    assert empty.images.shape == (0, *images().shape[1:])
    assert ClientDataset.merge([empty, ClientDataset(("b",), images(), labels())]).labels.size


def test_merge_keeps_writers_and_images_in_order():
    first = ClientDataset(("b",), images(1, 0.25), labels(3))
    merged = ClientDataset.merge([first, ClientDataset(("a", "c"), images(2, 0.75), labels(1, 2))])
    assert merged.writer_ids == ("b", "a", "c")
    assert merged.images[:, 0, 0, 0].tolist() == [0.25, 0.75, 0.75]
    assert merged.labels.tolist() == [3, 1, 2]
    with pytest.raises(ValueError, match="at least one"):
        ClientDataset.merge([])
    with pytest.raises(ValueError, match="once"):
        ClientDataset.merge([first, first])
    with pytest.raises(ValueError, match="once"):
        ClientDataset((), images(), labels())

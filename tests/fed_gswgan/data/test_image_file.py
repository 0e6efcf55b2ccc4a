import numpy as np
import pytest
from PIL import Image, ImageDraw

from fed_gswgan.data.image_folder import read_ink


def save(path, image):
    image.save(path)
    return path


def drawing(size=(28, 28), paper="white", ink="black", box=(8, 8, 19, 19), mode="L"):
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).rectangle(box, fill=ink)
    return image


def test_dark_ink_becomes_one_and_light_paper_zero(tmp_path):
    ink = read_ink(save(tmp_path / "a.png", drawing()))
    assert ink.shape == (1, 28, 28)
    assert ink.dtype == np.float32
    assert ink[0, 8:20, 8:20].min() == 1
    assert ink.sum() == 12 * 12


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_every_common_mode_reads_alike(tmp_path, mode):
    path = save(tmp_path / "a.png", drawing().convert(mode))
    assert read_ink(path) == pytest.approx(read_ink(save(tmp_path / "b.png", drawing())))


def test_a_transparent_background_is_white_paper(tmp_path):
    image = drawing(paper=(0, 0, 0, 0), ink=(0, 0, 0, 255), mode="RGBA")
    assert read_ink(save(tmp_path / "a.png", image)).sum() == 12 * 12


def test_a_larger_image_is_made_smaller_and_keeps_its_proportions(tmp_path):
    image = drawing(size=(280, 140), box=(100, 30, 179, 109))
    ink = read_ink(save(tmp_path / "a.png", image))[0] > 0.5
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (10, 17, 10, 17)


def test_dark_paper_is_refused_with_the_file_and_what_to_do(tmp_path):
    path = save(tmp_path / "dark.png", drawing(paper="black", ink="white"))
    with pytest.raises(ValueError, match=r"dark\.png: the border's median is 0 .*invert"):
        read_ink(path)


def test_ink_that_crosses_the_border_is_no_dark_paper(tmp_path):
    assert read_ink(save(tmp_path / "a.png", drawing(box=(0, 10, 27, 15)))).sum() == 28 * 6


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png: must be a PNG image"):
        read_ink(tmp_path / "text.png")


def test_a_file_cut_short_is_refused_by_name(tmp_path):
    path = save(tmp_path / "short.png", Image.effect_noise((64, 64), 50))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"short\.png"):
        read_ink(path)


def test_sixteen_bits_a_pixel_are_refused_by_name(tmp_path):
    path = save(tmp_path / "deep.png", Image.fromarray(np.full((28, 28), 65535, dtype=np.uint16)))
    with pytest.raises(ValueError, match=r"deep\.png: must have 8 bits a pixel"):
        read_ink(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_ink(tmp_path / "gone.png")

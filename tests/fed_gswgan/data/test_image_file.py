import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from fed_gswgan.data.image_file import MOST_PIXELS, read_ink


def save(path, image):
    image.save(path)
    return path


def drawing(size=(28, 28), paper="white", ink="black", box=(8, 8, 19, 19), mode="L"):
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).rectangle(box, fill=ink)
    return image


def test_a_larger_image_is_made_smaller_and_keeps_its_proportions(tmp_path):
    image = drawing(size=(280, 140), box=(100, 30, 179, 109))
    ink = read_ink(save(tmp_path / "a.png", image))[0] > 0.5
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (10, 17, 10, 17)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_dark_ink_becomes_one_and_light_paper_zero_in_every_mode(tmp_path, mode):
    ink = read_ink(save(tmp_path / "a.png", drawing().convert(mode)))
    assert (ink.shape, ink.dtype) == ((1, 28, 28), np.float32)
    assert ink[0, 8:20, 8:20].min() == 1
    assert ink.sum() == 12 * 12


@pytest.mark.parametrize(
    ("image", "ink"),
    [
        (drawing(paper=(0, 0, 0, 0), ink=(0, 0, 0, 255), mode="RGBA"), 12 * 12),
        (drawing(box=(0, 10, 27, 15)), 28 * 6),
    ],
    ids=["transparent paper", "ink across the border"],
)
def test_neither_transparency_nor_ink_at_the_border_is_dark_paper(tmp_path, image, ink):
    assert read_ink(save(tmp_path / "a.png", image)).sum() == ink


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (drawing(paper="black", ink="white"), "paper's grey.* is 0 of 255.*invert"),
        (drawing(paper=150, ink=60), "paper's grey.* is 150 of 255 and must be >= 200.*lighten"),
        (drawing(size=(7, 28)), "7 x 28 pixels; the shorter side must be >= 8"),
        (drawing(size=(10, 161)), "10 x 161 pixels;.* at most 16 times"),
        (Image.new("1", (20_000, 6_001), 1), f"must have <= {MOST_PIXELS:,}"),
        (Image.fromarray(np.full((28, 28), 0.5, np.float32)), "save it with 8 or 16 bits"),
    ],
    ids=["inverted", "grey paper", "narrow", "strip", "too large", "fractions"],
)
def test_a_picture_that_is_surely_wrong_is_refused_by_name(tmp_path, image, rule):
    with pytest.raises(ValueError, match=rf"a\.tif: .*{rule}"):
        read_ink(save(tmp_path / "a.tif", image))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_read_as_eight(tmp_path, suffix):
    eight = np.asarray(drawing(paper=250, ink=40))
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    found = read_ink(save(tmp_path / f"a{suffix}", sixteen))
    assert (found == read_ink(save(tmp_path / "b.png", Image.fromarray(eight)))).all()


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".JPEG", ".bmp", ".tiff", ".webp"])
def test_common_formats_are_read_alike(tmp_path, suffix):
    found = read_ink(save(tmp_path / f"a{suffix}", drawing()))
    assert found == pytest.approx(read_ink(save(tmp_path / "b.png", drawing())), abs=0.1)


@pytest.mark.parametrize("scale", [1, 257], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_picture_is_turned_as_its_exif_orientation_says(tmp_path, suffix, scale):
    pixels = np.asarray(drawing(box=(4, 10, 20, 12))).astype(np.uint8 if scale == 1 else np.uint16)
    upright, exif = Image.fromarray(pixels * scale), Image.Exif()
    exif[0x112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / f"a{suffix}", exif=exif)
    found = read_ink(tmp_path / f"a{suffix}")
    assert (found == read_ink(save(tmp_path / "b.png", upright))).all()


def test_cmyk_and_a_palette_with_transparency_show_dark_ink(tmp_path):
    pixels = np.zeros((28, 28), np.uint8)
    pixels[8:20, 8:20] = 1
    palette = Image.fromarray(1 - pixels, "P")
    palette.putpalette([0, 0, 0, 0, 0, 0])  # paper is black, and is not shown
    palette.save(tmp_path / "a.png", transparency=1)
    cmyk = drawing(mode="RGB").convert("CMYK")
    for path in (tmp_path / "a.png", save(tmp_path / "b.tif", cmyk)):
        ink = read_ink(path)
        assert ink[0, 8:20, 8:20].min() > 0.8
        assert ink[0, :8].max() < 0.1


BOMB = PngInfo()
BOMB.add_text("comment", "x" * 3_000_000, zip=True)
DAMAGED = {
    "is an empty file": lambda content: b"",
    "whole picture": lambda content: content[: len(content) // 2],
    "must be a whole picture, one of PNG": lambda content: b"no image",
    "pointer of Git LFS": lambda content: b"version https://git-lfs.github.com/spec/v1\nsize 1\n",
    r"one of PNG, .*\(": lambda content: content[:20] + zlib.compress(content),
}


@pytest.mark.parametrize("said", DAMAGED)
def test_a_file_that_is_no_whole_picture_is_refused_by_name(tmp_path, said):
    path = save(tmp_path / "a.png", Image.effect_noise((64, 64), 50))
    path.write_bytes(DAMAGED[said](path.read_bytes()))
    with pytest.raises(ValueError, match=rf"a\.png: .*{said}"):
        read_ink(path)


def test_a_bomb_of_text_and_several_pictures_are_refused_and_a_lost_file_named(tmp_path):
    drawing().save(tmp_path / "bomb.png", pnginfo=BOMB)
    with pytest.raises(ValueError, match=r"bomb\.png: must be a whole picture"):
        read_ink(tmp_path / "bomb.png")
    drawing().save(tmp_path / "two.tif", save_all=True, append_images=[drawing()])
    with pytest.raises(ValueError, match=r"two\.tif: it has 2 pictures and must have one"):
        read_ink(tmp_path / "two.tif")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_ink(tmp_path / "gone.png")

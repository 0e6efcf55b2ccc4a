"""One picture of a character in a file: dark ink on light paper, brought to 28 x 28 pixels."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fed_gswgan.data.characters import IMAGE_SHAPE, border_greys
from fed_gswgan.data.client_dataset import Images
from fed_gswgan.data.files import IS_LFS_POINTER, LFS_POINTER

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MOST_PIXELS = 120_000_000
LEAST_SIDE = 8  # pixels
LONGEST = 16  # times the shorter side
LIGHT = 200  # grey of paper, of 255, at least


class Unfit(ValueError):
    """A whole picture that cannot be one of a character; the message has no path."""


def read_ink(path: Path) -> Images:
    """Read dark ink on light paper.

    The picture is turned as its EXIF orientation says, padded with white to a square, brought to
    28 x 28 and inverted. Transparency shows white paper. Sixteen bits a pixel are brought to eight.

    Returns:
        float32 (1, 28, 28) in [0, 1], ink 1.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: the file is no whole picture of these formats, has too many pixels, is too small
            or too long, or its border is not light.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            with Image.open(path, formats=FORMATS) as file:
                _require_sides(*file.size)
                gray = _on_white_paper(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: the file was removed; open the folder again") from error
    except Exception as error:  # a damaged file can raise anything in a decoder
        raise ValueError(f"{path}: {_what_is_wrong(path, error)}") from error
    (border,) = border_greys(np.asarray(gray)[None])
    if border < LIGHT:
        remedy = "invert the image" if border < LIGHT / 2 else "lighten the paper"
        raise ValueError(
            f"{path}: the paper's grey, the median of the border, is {border:.0f} of 255 and must "
            f"be >= {LIGHT}, with darker ink; {remedy}"
        )
    side = max(gray.size)
    square = Image.new("L", (side, side), color=255)
    square.paste(gray, ((side - gray.width) // 2, (side - gray.height) // 2))
    small = square.resize(IMAGE_SHAPE[1:], Image.Resampling.BICUBIC)
    ink: Images = np.float32(1) - np.asarray(small, dtype=np.float32) / np.float32(255)
    return ink.reshape(IMAGE_SHAPE)


def _require_sides(width: int, height: int) -> None:
    """Require a size that a picture of one character can have, before it is decoded.

    Raises:
        Unfit: says the size and the rule.
    """
    size, shorter = f"{width} x {height} pixels", min(width, height)
    if width * height > MOST_PIXELS:
        raise Unfit(f"it has {size} and must have <= {MOST_PIXELS:,} in all; make it smaller")
    if shorter < LEAST_SIDE or max(width, height) > LONGEST * shorter:
        raise Unfit(
            f"it has {size}; the shorter side must be >= {LEAST_SIDE} and the longer at most "
            f"{LONGEST} times as long, or it is no picture of a character; remove it"
        )


def _on_white_paper(file: Image.Image) -> Image.Image:
    if (pictures := getattr(file, "n_frames", 1)) > 1:
        raise Unfit(f"it has {pictures} pictures and must have one; save them apart")
    if file.mode == "F":
        raise Unfit("its pixels are fractions without a range; save it with 8 or 16 bits")
    turned = ImageOps.exif_transpose(file)
    if turned.mode.startswith("I"):
        return _eight_bits(np.asarray(turned))
    if not turned.has_transparency_data:
        return turned.convert("RGB").convert("L") if turned.mode == "CMYK" else turned.convert("L")
    color = turned.convert("RGBA")
    paper = Image.new("RGBA", color.size, "white")
    return Image.alpha_composite(paper, color).convert("L")


def _eight_bits(pixels: NDArray[np.int32]) -> Image.Image:
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 65535:
        raise Unfit(f"pixels from {low} to {high} must lie in 0 .. 65535; save it again")
    return Image.fromarray((pixels / 257).round().astype(np.uint8))


def _what_is_wrong(path: Path, error: Exception) -> str:
    try:
        content = path.read_bytes() if path.stat().st_size < 1024 else b"more"
    except OSError:
        return f"cannot be read ({error}); give this account access to it"
    if not content:
        return "is an empty file; fetch it again or remove it"
    if content.startswith(LFS_POINTER):
        return IS_LFS_POINTER
    if isinstance(error, Unfit):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"must have <= {MOST_PIXELS:,} pixels ({error}); make it smaller"
    return f"must be a whole picture, one of {', '.join(FORMATS)} ({error}); save it again"

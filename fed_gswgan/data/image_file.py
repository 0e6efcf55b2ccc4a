"""One PNG of any size to one image of 28x28, ink 1 on paper 0."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fed_gswgan.data.writer_shard import IMAGE_SHAPE, Images

DARK = 128  # of 255
SIDE = IMAGE_SHAPE[-1]


def read_ink(path: Path) -> Images:
    """Read dark ink on light paper.

    The image is padded with white to a square, brought to 28x28, and inverted. Transparency shows
    white paper.

    Returns:
        float32 (1, 28, 28) in [0, 1], ink 1.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: the file is no image, has 16 bits a pixel, or its border is mostly dark.
    """
    try:
        with Image.open(path) as file:
            gray = _on_white_paper(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file any more; open the folder again") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: must be a PNG image ({error}); save it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _require_light_paper(path, np.asarray(gray))
    side = max(gray.size)
    square = Image.new("L", (side, side), color=255)
    square.paste(gray, ((side - gray.width) // 2, (side - gray.height) // 2))
    small = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ink: Images = np.float32(1) - np.asarray(small, dtype=np.float32) / np.float32(255)
    return ink.reshape(IMAGE_SHAPE)


def _on_white_paper(file: Image.Image) -> Image.Image:
    if file.mode.startswith(("I", "F")):
        raise ValueError(f"must have 8 bits a pixel, and its mode is {file.mode!r}; convert it")
    color = file.convert("RGBA")
    paper = Image.new("RGBA", color.size, "white")
    return Image.alpha_composite(paper, color).convert("L")


def _require_light_paper(path: Path, pixels: NDArray[np.uint8]) -> None:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) < DARK:
        raise ValueError(
            f"{path}: the border's median is {np.median(border):.0f} of 255, and paper must be "
            f"light (>= {DARK}) with dark ink; invert the image"
        )

"""Sheet of samples and real images in random order, to be read by eye.

``python -m benchmarks.reading_sheet RUN FOLDER`` draws 100 samples of a run, ten of each digit, and
100 held-out images likewise, shuffled, as FOLDER/sheet.png: 10 rows of 20 tiles. The reader writes
what each tile says into FOLDER/read.txt, a row a line, before looking at FOLDER/key.txt.
``python -m benchmarks.reading_sheet score FOLDER`` then counts.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import make_grid, save_image

from fed_gswgan.data.registry import open_source
from fed_gswgan.evaluation.report import in_greys_of
from fed_gswgan.evaluation.samplers import pool_sampler
from fed_gswgan.reporting.trained_generator import load_generator
from fed_gswgan.seeding import SeedStream

EACH, ROW, ENLARGED = 10, 20, 2
SAMPLE, REAL = "s", "r"


def draw(run: Path, folder: Path) -> None:
    """Write the sheet and its key."""
    trained = load_generator(run)
    held_out = open_source(trained.config.shared).held_out()
    real, real_labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
    labels = torch.arange(10).repeat_interleave(EACH)
    tiles = torch.cat(
        [
            in_greys_of(real, trained.sampler(labels, 1)),
            pool_sampler(real, real_labels)(labels, 1),
        ]
    )
    order = SeedStream(0).generator("reading sheet").permutation(len(tiles))
    kinds = np.repeat([SAMPLE, REAL], len(labels))[order]
    digits = torch.cat([labels, labels]).numpy()[order]
    large = tiles[torch.from_numpy(order)].repeat_interleave(ENLARGED, 2)
    large = large.repeat_interleave(ENLARGED, 3)
    folder.mkdir(parents=True, exist_ok=True)
    save_image(make_grid(1 - large, nrow=ROW, padding=4, pad_value=0.8), folder / "sheet.png")
    key = [f"{kind}{digit}" for kind, digit in zip(kinds, digits, strict=True)]
    (folder / "key.txt").write_text("\n".join(" ".join(row) for row in _rows(key)) + "\n")


def score(folder: Path) -> None:
    """Print how many samples and how many real images were read as what they are."""
    key = (folder / "key.txt").read_text().split()
    read = "".join((folder / "read.txt").read_text().split())
    if len(read) != len(key):
        raise ValueError(f"{folder}/read.txt has {len(read)} digits, must have {len(key)}")
    right = [tile for tile, digit in zip(key, read, strict=True) if tile[1] == digit]
    samples, real = (sum(tile[0] == kind for tile in right) for kind in (SAMPLE, REAL))
    print(f"samples {samples} of {10 * EACH}, real images {real} of {10 * EACH}")


def _rows(tiles: list[str]) -> list[list[str]]:
    return [tiles[begin : begin + ROW] for begin in range(0, len(tiles), ROW)]


if __name__ == "__main__":
    if sys.argv[1] == "score":
        score(Path(sys.argv[2]))
    else:
        draw(Path(sys.argv[1]), Path(sys.argv[2]))

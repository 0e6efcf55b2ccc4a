import numpy as np
import torch
from PIL import Image

from simulations.tables.pictures import (
    PER_CLASS,
    drawn_for_picture,
    drawn_samples,
    save_side_by_side,
)


def test_every_method_has_a_block_with_dark_ink_on_light_paper(tmp_path):
    ink = np.full((10, 2, 28, 28), 255, np.uint8)
    save_side_by_side({"all ink": ink, "all paper": np.zeros_like(ink)}, tmp_path / "s.png")
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
    left, right = np.array_split(pixels, 2, axis=1)
    assert left.mean() < 128 < 250 < right.mean()


def test_a_long_title_is_broken_and_not_cut_off(tmp_path):
    paper = np.zeros((2, 8, 28, 28), np.uint8)
    title = "GS-WGAN, Cramér critic, from the prior, epsilon 10"
    save_side_by_side({title: paper}, tmp_path / "s.png")
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
    assert pixels.min() < 128
    for edge in (pixels[:, :3], pixels[:, -3:], pixels[:3]):
        assert edge.min() == 255


def test_samples_in_colour_are_drawn_and_shown_as_they_are(tmp_path):
    def red(labels_B, seed):
        return torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(len(labels_B), 3, 32, 32)

    drawn = drawn_for_picture(red, num_classes=2)
    assert (drawn.shape, drawn.dtype) == ((2, PER_CLASS, 32, 32, 3), np.uint8)
    save_side_by_side({"red": drawn}, tmp_path / "s.png")
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB"))
    assert (pixels == (255, 0, 0)).all(axis=2).mean() > 0.4


def test_a_runs_samples_come_class_by_class_and_the_same_each_time(small_run):
    runs = {"one": small_run(rounds=1)}
    drawn = drawn_samples(runs)["one"]
    assert (drawn.shape, drawn.dtype) == ((10, PER_CLASS, 28, 28), np.uint8)
    assert np.array_equal(drawn, drawn_samples(runs)["one"])

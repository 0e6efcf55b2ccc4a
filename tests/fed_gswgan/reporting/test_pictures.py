import numpy as np
import torch
from PIL import Image

from fed_gswgan.reporting.pictures import (
    COLUMNS,
    CURVES,
    PER_CLASS,
    drawn_for_picture,
    drawn_samples,
    sample_grid,
    save_grid,
    save_reachable_plot,
    save_side_by_side,
)


def ink_by_class(labels_B, seed):
    """Class 0 is blank paper, class 1 all ink, class 2 grey of 0.25 ink."""
    ink = torch.tensor([0.0, 1.0, 0.25])[labels_B]
    return ink.view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def test_grid_has_a_row_for_each_class_and_twelve_columns():
    grid = sample_grid(ink_by_class, num_classes=3, seed=0)
    assert COLUMNS == 12
    assert grid.shape == (3, 3 * 30 + 2, 12 * 30 + 2)  # 28 pixels and 2 between
    assert grid.dtype == torch.float32


def test_paper_is_light_and_ink_is_dark():
    grid = sample_grid(ink_by_class, num_classes=3, seed=0)
    for row, light in enumerate((1.0, 0.0, 0.75)):
        for column in range(12):
            top, left = 2 + 30 * row, 2 + 30 * column
            assert (grid[:, top : top + 28, left : left + 28] == light).all()
    assert (grid[:, :2] == 1).all()  # the frame is paper


def test_colours_are_shown_as_they_are():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    grid = sample_grid(lambda labels_B, seed: red.expand(len(labels_B), 3, 32, 32), 1, seed=0)
    assert grid.shape == (3, 36, 12 * 34 + 2)
    assert (grid[:, 2:34, 2:34] == red[0]).all()


def test_grid_asks_for_every_class_with_the_seed():
    asked = []

    def sampler(labels_B, seed):
        asked.append((labels_B.tolist(), seed))
        return ink_by_class(labels_B, seed)

    sample_grid(sampler, num_classes=2, seed=9)
    assert asked == [([0] * 12 + [1] * 12, 9)]


def test_a_saved_grid_is_a_picture_of_the_same_pixels(tmp_path):
    path = tmp_path / "samples" / "round-000020.png"
    save_grid(sample_grid(ink_by_class, num_classes=3, seed=0), path)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (92, 362, 3)
    assert [pixels[10 + 30 * row, 10, 0] for row in range(3)] == [255, 0, 191]  # 0.75 x 255


def test_a_picture_is_written(tmp_path):
    rows = [
        {"population": 10**power, **{name: 10.0 ** (2 - power) for name in CURVES}}
        for power in (2, 3, 4)
    ]
    rows[-1]["central"] = 0.0  # has no place on a log axis
    path = tmp_path / "folder" / "reachable.png"
    save_reachable_plot(rows, "a title", path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (720, 480)
        assert len(picture.convert("RGB").getcolors(2**24)) > 50


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


def test_more_blocks_than_stand_beside_each_other_go_below(tmp_path):
    ink = np.full((10, 2, 28, 28), 255, np.uint8)
    for count in (6, 7):
        methods = {f"method {n}": ink for n in range(count)}
        save_side_by_side(methods, tmp_path / f"{count}.png")
    one, two = (Image.open(tmp_path / f"{count}.png").size for count in (6, 7))
    assert two[0] == one[0]
    assert 1.8 < two[1] / one[1] < 2.2

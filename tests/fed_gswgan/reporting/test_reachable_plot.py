from PIL import Image

from fed_gswgan.reporting.reachable_plot import CURVES, save_reachable_plot


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

import csv
import json

import numpy as np
import pytest

from simulations.tables.results import ResultsFolder, markdown, spreads, write_tables

SETTINGS = {"table": 1, "dataset": "mnist", "delta": 1e-5}
COLUMNS = (("method", "method", None), ("CNN acc.", "cnn", 3), ("epsilon", "epsilon", 2))
FOUND = {
    "rows": [
        {"method": "real images", "cnn": 0.99, "cnn_deviation": None, "published": {"CNN": 0.99}},
        {"method": "ours", "cnn": 0.8126, "cnn_deviation": 0.0149, "epsilon": 9.9987},
        {"method": "huge", "cnn": 0.1, "cnn_deviation": None, "epsilon": 115204.2},
    ],
    "notes": ["6000 samples"],
}


@pytest.fixture
def results(tmp_path):
    folder = ResultsFolder(tmp_path / "out")
    folder.open(SETTINGS)
    return folder


def test_a_cell_is_finished_under_the_settings_it_was_kept_with(results):
    settings = {"steps": 3, "adam": (0.5, 0.9)}
    assert not results.finished("a-0", settings)
    results.keep("a-0", {"epsilon": 9.9, "settings": settings})
    assert results.finished("a-0", settings)
    assert not results.finished("a-0", {"steps": 4})
    results.folder.joinpath("cells", "b-0.json").write_text("{}")
    assert not results.finished("b-0", settings)


def test_the_same_comparison_opens_again_with_its_cells_and_samples(results):
    samples = np.arange(2 * 784, dtype=np.uint8).reshape(1, 2, 28, 28)
    results.keep("a-0", {"x": 1})
    results.keep_samples("a-0", samples)
    again = ResultsFolder(results.folder)
    again.open(dict(SETTINGS))
    assert again.read("a-0") == {"x": 1}
    assert np.array_equal(again.samples("a-0"), samples)
    assert again.samples("real-0") is None


def test_a_folder_without_its_logs_gets_them_again(results):
    results.folder.joinpath("logs").rmdir()
    results.open(dict(SETTINGS))
    results.progress_log("a-0")("training: 50%")
    assert results.folder.joinpath("logs", "a-0.log").exists()


@pytest.mark.parametrize("changed", [{"delta": 1e-6}, {"epsilon": 1.0}])
def test_another_comparison_is_refused_by_the_setting_that_differs(results, changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"^{name}="):
        ResultsFolder(results.folder).open(SETTINGS | changed)


def test_a_log_line_is_on_disk_at_once(results):
    results.progress_log("a-0")("training: 50%")
    written = (results.folder / "logs" / "a-0.log").read_text()
    assert written.endswith("s  training: 50%\n")


def test_a_row_has_mean_and_deviation_of_every_metric_with_values():
    cells = [{"metrics": {"cnn": value, "epsilon": None}} for value in (1.0, 2.0, 4.0)]
    several = {"cnn": pytest.approx(7 / 3), "cnn_deviation": pytest.approx((7 / 3) ** 0.5)}
    assert spreads(COLUMNS, cells) == several
    assert spreads(COLUMNS, cells[:1]) == {"cnn": 1.0, "cnn_deviation": None}


def test_markdown_is_rounded_and_csv_and_json_hold_all_digits(tmp_path):
    write_tables(FOUND, tmp_path, COLUMNS, "mnist")
    lines = markdown(FOUND, COLUMNS, "mnist").splitlines()
    assert (tmp_path / "table.md").read_text().splitlines() == lines
    assert lines == [
        "# mnist",
        "",
        "| method | CNN acc. | epsilon | as published |",
        "| --- | --- | --- | --- |",
        "| real images | 0.990 | - | CNN 0.99 |",
        "| ours | 0.813 ± 0.015 | 10.00 | - |",
        "| huge | 0.100 | 1.15e+05 | - |",
        "",
        "- 6000 samples",
    ]
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["epsilon"]) == 9.9987
    assert rows[0]["epsilon"] == ""
    assert json.loads((tmp_path / "table.json").read_text()) == FOUND

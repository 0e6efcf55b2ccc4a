import csv
import json

import pytest

from fed_gswgan.comparison.rows import metric_spreads, spread
from fed_gswgan.comparison.tables import markdown, write_tables

COLUMNS = (("method", "method", None), ("CNN acc.", "cnn", 3), ("epsilon", "epsilon", 2))
FOUND = {
    "rows": [
        {"method": "real images", "cnn": 0.99, "cnn_deviation": None, "published": {"CNN": 0.99}},
        {"method": "ours", "cnn": 0.8126, "cnn_deviation": 0.0149, "epsilon": 9.9987},
        {"method": "huge", "cnn": 0.1, "cnn_deviation": None, "epsilon": 115204.2},
    ],
    "notes": ["6000 samples"],
}


def test_mean_and_deviation_are_those_of_the_seeds():
    assert spread([1.0, 2.0, 4.0]).mean == pytest.approx(7 / 3)
    assert spread([1.0, 2.0, 4.0]).deviation == pytest.approx((7 / 3) ** 0.5)
    assert spread([5.0]).deviation is None


def test_a_metric_without_a_value_has_no_spread():
    cells = [{"metrics": {"calibrated_accuracy": None, "inception_score": 5.0}}]
    spreads = metric_spreads(cells)
    assert set(spreads) == {"inception_score"}


def test_the_text_has_a_deviation_only_where_there_are_seeds_and_the_paper_apart():
    lines = markdown(FOUND, COLUMNS, "mnist").splitlines()
    assert lines[0] == "# mnist"
    assert lines[2] == "| method | CNN acc. | epsilon | as published |"
    assert lines[4] == "| real images | 0.990 | - | CNN 0.99 |"
    assert lines[5] == "| ours | 0.813 ± 0.015 | 10.00 | - |"
    assert lines[6] == "| huge | 0.100 | 1.15e+05 | - |"
    assert lines[-1] == "- 6000 samples"


def test_csv_and_json_hold_all_digits(tmp_path):
    write_tables(FOUND, tmp_path, COLUMNS, "mnist")
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["epsilon"]) == 9.9987
    assert rows[0]["epsilon"] == ""
    assert json.loads((tmp_path / "table.json").read_text()) == FOUND
    assert (tmp_path / "table.md").read_text() == markdown(FOUND, COLUMNS, "mnist")

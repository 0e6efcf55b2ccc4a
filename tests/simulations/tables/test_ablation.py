"""The ablation on the built-in digits, with fits of two steps."""

import json
import tomllib
from unittest.mock import Mock

import pytest

from fed_gswgan.cli import main
from fed_gswgan.config import Config
from fed_gswgan.evaluation import classifier
from simulations.tables import ablation
from simulations.tables.ablation import CURVES, ROWS, Ablation

TINY = """
dataset = "digits"
classes = "digits"
max-clients = 4
cohort-size = 4
trust = "secure-aggregation"
rounds = 1
prior = "strokes"
fit-steps = 2
points = 1
feature-frequencies = 7
feature-components = 64
noise-source = "seeded"
samples-every = 100
evaluation-samples = 100
"""


@pytest.fixture
def make(tmp_path, monkeypatch, small_fits, cells_here):
    tiny = tmp_path / "tiny.toml"
    tiny.write_text(TINY)
    cells_here(ablation)
    monkeypatch.setattr(classifier, "STEPS_PER_CLASS", 1)  # of every metric's classifier
    monkeypatch.setattr(ablation, "SECURE", tiny)
    monkeypatch.setattr(ablation, "AXIS", (5.0,))

    def of(*rows, **changed):
        given = {"epsilons": (1.0,), "axis": True, "seeds": 1} | changed
        return Ablation(
            rows=rows,
            dataset="fed-emnist",
            workers=1,
            folder=tmp_path / "found",
            **given,
        )

    return of


def test_rows_are_medians_and_go_on_where_they_stopped(make, tmp_path, cells_here):
    folder = tmp_path / "found"
    found = make("default", "private evolution", "features dct", "no tilt", "no scale").run(Mock())
    rows = [(row["what"], row["epsilon"]) for row in found["rows"]]
    assert rows == [
        ("default", 1.0), ("default", 5.0), ("private evolution", 1.0), ("private evolution", 5.0),
        ("features dct", 1.0), ("no tilt", 1.0), ("no scale", 1.0),
    ]  # fmt: skip
    by_row = dict(zip(rows, found["rows"], strict=True))
    assert by_row["default", 1.0]["numbers"] == 10 * (49 + 64) + 10
    assert by_row["private evolution", 1.0]["numbers"] == 10 * 20
    assert by_row["features dct", 1.0]["numbers"] == 10 * 49 + 10
    assert by_row["no tilt", 1.0]["numbers"] == 10 * (49 + 64) + 10
    assert by_row["no scale", 1.0]["numbers"] == 10 * (49 + 64)
    assert all(row["frechet_distance"] > 0 and row["seeds"] == 1 for row in found["rows"])
    assert "within-class variance of real images: 0.0" in "\n".join(found["notes"])
    assert {path.name for path in folder.glob("*.png")} == {
        "samples.png", "frechet-distance-against-epsilon.png",
        "downstream-accuracy-against-epsilon.png",
    }  # fmt: skip
    cells_here(ablation, none=True)
    again = make("default", "private evolution", "features dct", "no tilt", "no scale").run(Mock())
    assert again == json.loads((folder / "table.json").read_text()) == found


def test_every_row_has_valid_settings_and_one_thing_changed():
    default = Ablation(
        rows=tuple(ROWS), epsilons=(1.0,), axis=False, seeds=1, dataset="drawn",
        workers=1, folder=None,
    )  # fmt: skip
    tables = {name: Config.from_table(default.settings(name, 1.0, 1)).to_table() for name in ROWS}
    assert tables["default"]["dataset"] == "drawn"
    for name, table in tables.items():
        changed = {k for k, v in table.items() if tables["default"].get(k, v) != v}
        assert changed <= {*ROWS[name], "algorithm-settings"}
        own = tomllib.loads(str(table["algorithm-settings"]))
        assert own.items() <= tables["default"].items()
    assert set(CURVES) <= set(ROWS)


def test_what_does_not_exist_is_refused_by_name(capsys):
    assert main(["compare", "ablation", "--rows", "nothing"]) == 2
    assert "rows='nothing' must be one of" in capsys.readouterr().err
    assert main(["compare", "ablation", "--dataset", "mnist"]) == 2
    assert "dataset='mnist' must be one of" in capsys.readouterr().err

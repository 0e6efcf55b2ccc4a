"""Cells of a comparison in real worker processes, on the built-in digits."""

import io
import json
import shutil
from dataclasses import replace

import pytest
from rich.console import Console

from fed_gswgan.reporting.round_log import read_rounds
from simulations.tables.cells import FederatedRun, run_cells, shares_of

SETTINGS = {
    "dataset": "digits", "classes": "digits", "max-clients": 4, "cohort-size": 3, "critic": "mlp",
    "batch-size": 8, "critic-width": 16, "critic-steps": 2, "generator-width": 8, "rounds": 2,
    "noise-stddev": 2.14, "noise-source": "seeded", "samples-every": 100, "evaluation-samples": 0,
}  # fmt: skip


def test_runs_go_into_folders_of_their_own_and_are_kept(tmp_path):
    cells = [
        FederatedRun(name=f"run-{seed}", settings=SETTINGS | {"seed": seed}, comparison=tmp_path)
        for seed in range(2)
    ]
    shown, finished = io.StringIO(), []
    console = Console(file=shown, force_terminal=True, width=120)
    run_cells(cells, 2, console, lambda: finished.append([cell.finished for cell in cells]))
    assert sorted(map(sum, finished)) == [1, 2] or finished == [[True, True]] * 2
    assert "2/2" in shown.getvalue()
    assert "left:" in shown.getvalue()
    for seed, cell in enumerate(cells):
        assert cell.summary()["rounds"] == 2
        assert len(list(read_rounds(cell.folder))) == 2
        assert json.loads((cell.folder / "run.json").read_text())["config"]["seed"] == seed
    run_cells(cells, 2, console, lambda: finished.append("again"))
    assert "again" not in finished
    with pytest.raises(ValueError, match="critic-steps=5 must be 2, as in the run in"):
        _ = replace(cells[0], settings=SETTINGS | {"seed": 0, "critic-steps": 5}).finished


def test_a_run_that_was_killed_within_a_round_begins_anew(tmp_path):
    """Its budget has no more than the round that was lost."""
    settings = {**SETTINGS, "noise-source": "secure", "epsilon": 10.0, "rounds": 1}
    settings |= {"cohort-size": 4, "max-participations": 1}
    del settings["noise-stddev"]
    cell = FederatedRun(name="run", settings=settings, comparison=tmp_path)
    cell.run()
    first = json.loads((cell.folder / "run.json").read_text())["experiment_id"]
    shutil.rmtree(cell.folder / "checkpoint")
    for name in ("rounds.jsonl", "summary.json"):
        (cell.folder / name).unlink()
    assert not cell.finished
    cell.run()
    assert cell.finished
    assert cell.summary()["rounds"] == cell.summary()["replies"]["received"] / 4 == 1
    assert json.loads((cell.folder / "run.json").read_text())["experiment_id"] != first


def test_a_run_that_ends_early_each_time_is_an_error(tmp_path, monkeypatch):
    cell = FederatedRun(name="run", settings=SETTINGS, comparison=tmp_path)
    cell.run()
    summary = cell.summary() | {"rounds": 1}
    (cell.folder / "summary.json").write_text(json.dumps(summary))
    assert not cell.finished
    monkeypatch.setattr(FederatedRun, "summary", lambda cell: {"rounds": 1})
    with pytest.raises(RuntimeError, match="run: ended after 1 rounds"):
        cell.run()


def test_a_run_that_cannot_begin_is_named_with_its_error_and_stops_no_other(tmp_path):
    fails = FederatedRun(
        name="fails", settings=SETTINGS | {"dataset": "qmnist", "data-dir": "/nowhere"},
        comparison=tmp_path,
    )  # fmt: skip
    works = FederatedRun(name="works", settings=SETTINGS, comparison=tmp_path)
    with pytest.raises(RuntimeError, match=r"fails failed, the first with .*nowhere"):
        run_cells([fails, works], 1, Console(file=io.StringIO()), lambda: None)
    assert works.finished
    assert not fails.finished


def test_workers_share_the_cores():
    assert shares_of([0, 1, 4], 2) == [(0, 4), (1,)]
    assert shares_of([3, 5], 2) == [(3,), (5,)]
    assert shares_of([3], 2) == [(3,), (3,)]

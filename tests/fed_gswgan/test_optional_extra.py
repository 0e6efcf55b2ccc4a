"""Without the extra ``compare``: its packages are made to fail on import, as if not installed."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from fed_gswgan.cli import main
from fed_gswgan.evaluation.samplers import write_samples
from simulations.tables.table1 import Table1

ADVICE = "in a checkout, pip install '.[compare]'"
THEIRS = ("opacus", "xgboost")


@pytest.fixture
def without_extra(monkeypatch):
    """Forget the modules that have imported the extra's packages, and those that import them."""
    for name in list(sys.modules):
        if name.startswith(("fed_gswgan.baselines", "simulations.tables")) or name in (
            "fed_gswgan.evaluation.accuracy",
            "fed_gswgan.evaluation.table",
        ):
            monkeypatch.delitem(sys.modules, name)
    for package in THEIRS:
        for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, name, None)


def test_table1_says_which_extra_to_install(without_extra, tmp_path, capsys):
    words = ["compare", "table1", "--dataset", "mnist", "--output", str(tmp_path / "table1")]
    assert main(words) == 2
    assert ADVICE in capsys.readouterr().err
    assert not (tmp_path / "table1").exists()


def test_the_tables_metrics_say_which_extra_to_install(without_extra, tmp_path, capsys):
    file = tmp_path / "samples.npz"
    write_samples(file, torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]))
    assert main(["evaluate", str(file), "--dataset", "mnist"]) == 2
    assert ADVICE in capsys.readouterr().err


@pytest.mark.parametrize("method", ["dpsgd-gan", "dpsgd-gan-revisited", "dp-merf-ae"])
def test_a_method_by_dp_sgd_says_which_extra_to_install_before_anything_runs(
    monkeypatch, without_extra, method
):
    with pytest.raises(ModuleNotFoundError) as refused:
        table_of(method)
    assert str(refused.value).startswith(f"methods={method} needs an extra")
    assert str(refused.value).endswith(ADVICE)
    table_of("dp-merf")  # needs no opacus


def table_of(method: str) -> Table1:
    return Table1(
        dataset="mnist", data_dir=None, preset="small", methods=(method,), epsilons=(10.0,),
        delta=1e-5, seeds=1, folder=Path("unused"), workers=1,
    )  # fmt: skip


@pytest.mark.parametrize("module", ["simulations.tables.table4", "fed_gswgan.evaluation.report"])
def test_the_fourth_table_needs_no_extra(without_extra, module):
    import_module(module)

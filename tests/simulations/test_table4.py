"""The fourth table end to end, on the built-in digits: real runs in processes of their own."""

import json
from pathlib import Path

import pytest

from simulations import federated_presets
from simulations.compare import main
from simulations.federated_presets import FederatedMethod
from simulations.table4 import Table4

TINY = {
    "dataset": "digits", "classes": "digits", "max-clients": 4, "cohort-size": 3, "batch-size": 8,
    "critic-width": 16, "critic-steps": 2, "generator-width": 8, "rounds": 3,
    "noise-source": "seeded", "samples-every": 100, "evaluation-samples": 200, "delta": 1e-3,
}  # fmt: skip
FEDAVG = {
    "algorithm": "fedavg-gan", "clipping": "message", "clipping-bound": 0.1, "noise-stddev": 0.01,
}  # fmt: skip


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setitem(federated_presets.SHARED, "small", TINY)
    methods = {
        "gs-wgan": FederatedMethod(title="GS-WGAN", settings={"noise-stddev": 2.14}),
        "fedavg-gan": FederatedMethod(title="FedAvg-GAN", settings=FEDAVG),
        "fedavg-gan-matched": FederatedMethod(
            title="matched", settings=FEDAVG, matched_to="gs-wgan"
        ),
    }
    monkeypatch.setitem(federated_presets.METHODS, "small", methods)

    def make(*names):
        return Table4(
            dataset="fed-emnist", preset="small", methods=names, seeds=1, runtime="in-process",
            folder=tmp_path / "table4",
        )  # fmt: skip

    return make


def test_every_method_gets_a_row_once_with_both_epsilons_bytes_and_trust(table, tmp_path, capfd):
    found = table("gs-wgan", "fedavg-gan", "fedavg-gan-matched").run()
    ours, theirs, matched = found["rows"]
    assert [row["trust_model"] for row in found["rows"]] == ["local", "central", "central"]
    assert ours["epsilon_zero_out"] < ours["epsilon_replace_one"] < theirs["epsilon_replace_one"]
    assert matched["epsilon_replace_one"] == pytest.approx(ours["epsilon_replace_one"], rel=1e-6)
    assert ours["published"]["FID"] == 60.76
    assert "IS 11.25, FID 60.76" in (tmp_path / "table4" / "table.md").read_text()
    assert "GS-WGAN (local trust) over FedAvg-GAN (central trust): " in "\n".join(found["notes"])
    assert ours["frechet_distance"] > 0
    assert 0 < ours["client_teraflops"] < theirs["client_teraflops"] < 1
    assert theirs["client_teraflops"] == matched["client_teraflops"]
    notes = "\n".join(found["notes"])
    for words in ("1/263", "1/16,700", "0.28", "against the server itself FedAvg-GAN has no"):
        assert words in notes

    folder = tmp_path / "table4"
    summary = folder / "runs" / "gs-wgan-0" / "summary.json"
    before = summary.stat().st_mtime_ns
    again = table("gs-wgan", "fedavg-gan", "fedavg-gan-matched").run()
    assert summary.stat().st_mtime_ns == before  # what is finished is not run again
    assert again == json.loads((folder / "table.json").read_text()) == found
    words = ["--methods", "gs-wgan", "--runtime", "in-process"]
    assert main([*words, "--output", str(folder)]) == 0
    printed = capfd.readouterr().out
    assert printed == (folder / "table.md").read_text() + f"written to {folder}\n"
    federated_presets.SHARED["small"]["critic-steps"] = 5
    try:
        with pytest.raises(ValueError, match="critic-steps=5 must be 2, as in the run that"):
            table("gs-wgan").run()
    finally:
        federated_presets.SHARED["small"]["critic-steps"] = 2
    names = {path.name for path in folder.glob("*.png")}
    assert names == {
        "samples.png", "quality-against-epsilon.png", "quality-against-bytes.png",
        "epsilon-against-rounds.png",
    }  # fmt: skip


def test_a_row_that_is_matched_needs_the_one_it_is_matched_to(table):
    with pytest.raises(ValueError, match="methods must name gs-wgan before"):
        table("fedavg-gan-matched").run()


def test_a_method_that_the_preset_lacks_is_named(table, capfd):
    assert main(["--methods", "dp-merf"]) == 2
    assert "methods='dp-merf' must be one of" in capfd.readouterr().err

"""The fourth table on the built-in digits, with runs of three rounds."""

import json
from dataclasses import replace

import pytest

from fed_gswgan.cli import main
from fed_gswgan.config import Config
from fed_gswgan.evaluation import classifier
from simulations import run
from simulations.tables import table4
from simulations.tables.table4 import (
    GSWGAN,
    PAPERS,
    RIVALS,
    SOLVED,
    TITLES,
    Table4,
    participation_flops,
    settings_of,
)  # fmt: skip

TINY = """
dataset = "digits"
classes = "digits"
max-clients = 4
cohort-size = 3
batch-size = 8
critic = "mlp"
critic-width = 16
critic-steps = 2
generator-width = 8
rounds = 3
noise-stddev = 2.14
noise-source = "seeded"
samples-every = 100
evaluation-samples = 200
delta = 1e-3
"""
SECURE = """
dataset = "digits"
classes = "digits"
max-clients = 4
cohort-size = 4
trust = "secure-aggregation"
rounds = 1
prior = "strokes"
fit-steps = 2
points = 1
noise-source = "seeded"
samples-every = 100
evaluation-samples = 200
"""
FEDAVG = {
    "algorithm": "fedavg-gan", "trust": "central", "clipping-bound": 0.1, "noise-stddev": 0.01,
}  # fmt: skip


@pytest.fixture
def table(tmp_path, monkeypatch):
    tiny = tmp_path / "tiny.toml"
    tiny.write_text(TINY)
    monkeypatch.setattr(run, "available_cores", lambda: 1)  # no worker processes
    monkeypatch.setattr(classifier, "STEPS_PER_CLASS", 1)  # of every metric's classifier
    monkeypatch.setattr(table4, "GSWGAN", {"small": tiny})
    monkeypatch.setattr(table4, "FEDAVG", {"small": FEDAVG})

    def make(*names):
        return Table4(
            preset="small", methods=names, seeds=1, runtime="in-process", folder=tmp_path / "table4"
        )

    return make


def test_every_method_runs_once_and_has_a_row_with_epsilons_bytes_and_trust(
    table, tmp_path, monkeypatch, capfd
):
    folder = tmp_path / "table4"
    found = table(*PAPERS).run()
    ours, theirs, matched = found["rows"]
    assert [row["trust_model"] for row in found["rows"]] == ["local", "central", "central"]
    assert ours["epsilon_zero_out"] < ours["epsilon_replace_one"] < theirs["epsilon_replace_one"]
    assert matched["epsilon_replace_one"] == pytest.approx(ours["epsilon_replace_one"], rel=1e-6)
    assert ours["frechet_distance"] > 0
    both_ways = ours["uplink_kilobytes"] + ours["downlink_kilobytes"]
    assert ours["user_kilobytes"] == pytest.approx(both_ways * ours["participations_max"])
    assert 0 < ours["client_teraflops"] < theirs["client_teraflops"] < 1
    assert theirs["client_teraflops"] == matched["client_teraflops"]
    assert "IS 11.25, FID 60.76" in (folder / "table.md").read_text()
    notes = "\n".join(found["notes"])
    for words in (
        "GS-WGAN (local trust) over FedAvg-GAN (central trust): ", "1/263", "1/16,700", "0.28",
        "against the server itself FedAvg-GAN has no",
    ):  # fmt: skip
        assert words in notes
    assert {path.name for path in folder.glob("*.png")} == {
        "samples.png", "quality-against-epsilon.png", "quality-against-bytes.png",
        "epsilon-against-rounds.png",
    }  # fmt: skip

    with monkeypatch.context() as patch:
        patch.setattr(table4, "simulate", None)  # what is finished does not run again
        assert table(*PAPERS).run() == json.loads((folder / "table.json").read_text()) == found
        capfd.readouterr()
        words = ["compare", "table4", "--methods", "gs-wgan", "--output", str(folder)]
        assert main(words) == 0
    printed = capfd.readouterr().out
    assert printed == (folder / "table.md").read_text() + f"written to {folder}\n"
    (tmp_path / "tiny.toml").write_text(TINY.replace("critic-steps = 2", "critic-steps = 5"))
    with pytest.raises(ValueError, match="critic-steps=5 must be 2, as in the run in"):
        table("gs-wgan").run()


@pytest.mark.parametrize("missing", ["gs-wgan", "fedavg-gan"])
def test_a_matched_row_needs_both_rows_that_it_follows(table, missing):
    (there,) = {"gs-wgan", "fedavg-gan"} - {missing}
    with pytest.raises(ValueError, match=f"methods must name {missing} before"):
        table(there, "fedavg-gan-matched")


def test_an_unknown_method_is_named(capfd):
    assert main(["compare", "table4", "--methods", "dp-merf"]) == 2
    assert "methods='dp-merf' must be one of" in capfd.readouterr().err


def test_the_small_preset_gives_the_clients_of_each_method_as_much_to_compute():
    flops = []
    for method in PAPERS:
        config = Config.from_table(settings_of(method, "small"))
        assert config.own.warm_start_steps == 0  # which would not be counted
        participations = config.shared.rounds * config.shared.cohort_size
        flops.append(participations * participation_flops(config, num_classes=10))
    assert flops == pytest.approx([flops[0]] * len(flops), rel=0.02)


@pytest.mark.parametrize("preset", GSWGAN)
def test_every_row_has_valid_settings(preset):
    for method in PAPERS:
        shared = Config.from_table(settings_of(method, preset)).shared
        assert (shared.dataset, shared.neighboring_relation) == ("fed-emnist", "replace-one")
        assert shared.trust == ("local" if method == "gs-wgan" else "central")


def test_rows_of_the_critic_that_is_solved_have_the_same_writers_and_their_own_epsilon():
    paper = Config.from_table(settings_of("gs-wgan", "small")).shared
    same = ("dataset", "classes", "min_images_per_writer", "evaluation_samples")
    for method in TITLES.keys() - set(PAPERS):
        config = Config.from_table(settings_of(method, "small"))
        for name in same:
            assert getattr(config.shared, name) == getattr(paper, name), name
        assert (config.own.prior == "none") == ("no-prior" in method)
    for method in SOLVED:
        shared = Config.from_table(settings_of(method, "small")).shared
        trust = "local" if "local" in method else "secure-aggregation"
        assert (shared.trust, shared.cohort_size, shared.delta) == (trust, 411, 1e-5)
        assert shared.epsilon == float(method.rpartition("-")[2])
        with pytest.raises(ValueError, match=f"methods={method} must be one of gs-wgan"):
            settings_of(method, "full")
    assert {name for pair in RIVALS for name in pair} <= set(TITLES)


def test_from_the_prior_both_sides_and_their_ratio(table, tmp_path, monkeypatch, small_fits):
    secure = tmp_path / "secure.toml"
    secure.write_text(SECURE)
    row = replace(SOLVED["cramer-10"], base=secure)
    monkeypatch.setattr(table4, "SOLVED", {"cramer-10": row})
    monkeypatch.setattr(table4, "SAME_WRITERS", {})
    started = {**table4.WITH_PRIOR, "generator-width": 32}
    monkeypatch.setattr(table4, "WITH_PRIOR", started)
    found = table("fedavg-gan-prior", "cramer-10").run()
    theirs, ours = found["rows"]
    assert ours["epsilon_replace_one"] == pytest.approx(10, rel=1e-3)
    assert ours["client_teraflops"] < theirs["client_teraflops"]
    first, second = ours["frechet_distance_median"], theirs["frechet_distance_median"]
    ratio = f"= {first / second:.2f}; the paper's ratio: 0.28"
    said = [note for note in found["notes"] if note.endswith(ratio)]
    assert len(said) == 1
    assert "from the prior, epsilon 10 (secure-aggregation trust) over FedAvg-GAN from" in said[0]

"""The fourth table on the built-in digits, with runs of a few rounds."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from fed_gswgan.cli import main
from fed_gswgan.config import Config
from fed_gswgan.data.registry import open_source
from fed_gswgan.evaluation import classifier
from fed_gswgan.secure_aggregation.protocol import bytes_beside_payload
from simulations.tables import table4, table4_rows
from simulations.tables.table4 import (
    RIVALS,
    BestContrast,
    FederatedRow,
    Table4,
    greyness,
    participation_flops,
)
from simulations.tables.table4_rows import rows_of

DIGITS = {
    "dataset": "digits", "classes": "digits", "max-clients": 4, "noise-source": "seeded",
    "samples-every": 100, "evaluation-samples": 100, "delta": 1e-3,
}  # fmt: skip
TRAINED = DIGITS | {
    "cohort-size": 3, "batch-size": 8, "critic": "mlp", "critic-width": 16, "critic-steps": 2,
    "generator-width": 8, "rounds": 3, "noise-stddev": 2.14,
}  # fmt: skip
FEDAVG = {
    "algorithm": "fedavg-gan", "trust": "central", "clipping-bound": 0.1, "noise-stddev": 0.01,
}  # fmt: skip
SOLVED = DIGITS | {
    "cohort-size": 4, "trust": "secure-aggregation", "rounds": 1, "prior": "strokes",
    "fit-steps": 2, "points": 1, "epsilon": 1.0,
}  # fmt: skip
TINY_ROWS = {
    "gs-wgan": FederatedRow(title="GS-WGAN, as published", settings=TRAINED),
    "fedavg-gan": FederatedRow(title="FedAvg-GAN", settings=TRAINED | FEDAVG, once=False),
    "cramer-1": FederatedRow(title="Cramér critic, epsilon 1", settings=SOLVED),
}


@pytest.fixture
def table(tmp_path, monkeypatch, small_fits, cells_here):
    monkeypatch.setattr(classifier, "STEPS_PER_CLASS", 1)  # of every metric's classifier
    monkeypatch.setattr(table4, "rows_of", lambda classes: TINY_ROWS)
    cells_here(table4)
    monkeypatch.setattr(table4, "CONTRAST_SAMPLES", 100)

    def make(*names, **changed):
        given = {"seeds": 1, "workers": 1, "classes": "digits"} | changed
        return Table4(methods=names, folder=tmp_path / "table4", **given)

    return make


def test_every_method_has_a_row_with_epsilons_bytes_and_trust(
    table, tmp_path, monkeypatch, cells_here
):
    folder = tmp_path / "table4"
    drawn = open_source(Config.from_table(DIGITS).shared)
    monkeypatch.setattr(
        table4, "open_source", lambda s: drawn if s.dataset == "drawn" else open_source(s)
    )
    found = table(*TINY_ROWS, seeds=2).run(Mock())
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["prior", "real", *TINY_ROWS]
    assert rows["real"]["label_agreement"] >= rows["prior"]["label_agreement"]
    assert "not private" in rows["real"]["trust_model"]
    ours, theirs, low = (rows[name] for name in TINY_ROWS)
    trusts = [row["trust_model"] for row in (ours, theirs, low)]
    assert trusts == ["local", "central", "secure-aggregation"]
    assert [row["seeds"] for row in (ours, theirs, low)] == [1, 2, 1]
    assert len(theirs["frechet_distances"]) == 2
    assert low["epsilon_replace_one"] == pytest.approx(1, rel=1e-3)
    assert ours["epsilon_zero_out"] < ours["epsilon_replace_one"] < theirs["epsilon_replace_one"]
    both_ways = ours["uplink_kilobytes"] + ours["downlink_kilobytes"]
    assert ours["user_kilobytes"] == pytest.approx(both_ways * ours["participations_max"])
    assert ours["protocol_kilobytes"] == ours["user_kilobytes"]
    added = low["protocol_kilobytes"] - low["user_kilobytes"]
    assert added == pytest.approx(bytes_beside_payload(4) / 1e3)
    assert 0 < ours["client_teraflops"] < theirs["client_teraflops"] < 1
    assert all(0 < row["device_seconds"] < 60 for row in (ours, theirs, low))

    (by_seed,) = (note for note in found["notes"] if note.startswith("Fréchet distance by seed"))
    assert by_seed.endswith(
        "FedAvg-GAN " + ", ".join(f"{d:.2f}" for d in theirs["frechet_distances"])
    )

    text = (folder / "table.md").read_text()
    assert "IS 11.25, FID 60.76" in text
    (ratio,) = (note for note in found["notes"] if note.startswith("GS-WGAN, as published (local)"))
    for words in ("over FedAvg-GAN (central): Fréchet distance, medians", "1/263", "0.28"):
        assert words in ratio
    assert {path.name for path in folder.glob("*.png")} == {
        "samples.png", "frechet-distance-against-epsilon.png",
        "frechet-distance-against-bytes.png", "downstream-accuracy-against-epsilon.png",
        "downstream-accuracy-against-bytes.png",
    }  # fmt: skip
    contrasts = json.loads((folder / "contrast.json").read_text())["rows"]
    assert [row["method"] for row in contrasts] == [row.title for row in TINY_ROWS.values()]
    assert all(0.25 <= row["contrast"] <= 4 for row in contrasts)

    cells_here(table4, none=True)
    again = table(*TINY_ROWS, seeds=2).run(Mock())
    assert again == json.loads((folder / "table.json").read_text()) == found


def test_greyness_is_of_the_ink_alone():
    """By hand: 4 x (1 - x) is 0 for black and white, and 1 for half."""
    images = torch.zeros(1, 1, 2, 4)
    assert greyness(images) == 0
    images[0, 0, 0] = torch.tensor([1.0, 0.5, 0.0, 0.0])
    assert greyness(images) == pytest.approx(1 / 1.5)
    assert greyness(images.repeat(3, 1, 1, 1)) == pytest.approx(1 / 1.5)


def test_the_best_contrast_gives_samples_the_greys_of_drawn_characters(tmp_path, monkeypatch):
    drawn = open_source(Config.from_table(DIGITS).shared)
    images = torch.from_numpy(drawn.held_out().images)
    trained = Mock()
    trained.sampler = lambda labels, seed: torch.sigmoid(
        torch.logit(images[torch.arange(len(labels)) % len(images)], eps=1e-3) / 2
    )
    trained.config = Config.from_table(SOLVED)
    monkeypatch.setattr(classifier, "STEPS_PER_CLASS", 1)
    monkeypatch.setattr(table4, "open_source", lambda shared: drawn)
    monkeypatch.setattr(table4, "load_generator", lambda folder: trained)
    table4.ResultsFolder(tmp_path).open({})
    run = Mock(settings=SOLVED)
    cell = BestContrast(comparison=tmp_path, method="cramer-1", trained=run)
    assert not cell.finished
    cell.run()
    assert cell.finished
    assert cell.read()["contrast"] == pytest.approx(2, rel=0.03)
    run.settings = SOLVED | {"rounds": 2}
    assert not cell.finished


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "dp-merf"], "methods='dp-merf' must be one of"),
        (["--classes", "letters"], "classes='letters' must be one of"),
        (["--methods", ""], "methods=0 must be"),
        (["--workers", "0"], "workers=0 must be"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(capfd, words, message):
    assert main(["compare", "table4", *words]) == 2
    assert message in capfd.readouterr().err


def test_the_published_methods_give_their_clients_as_much_to_compute():
    flops = []
    for method in ("gs-wgan", "fedavg-gan"):
        config = Config.from_table(dict(rows_of("digits")[method].settings))
        assert config.own.warm_start_steps == 0  # which would not be counted
        participations = config.shared.rounds * config.shared.cohort_size
        flops.append(participations * participation_flops(config, num_classes=10))
    assert flops == pytest.approx([flops[0]] * len(flops), rel=0.02)


@pytest.mark.parametrize(
    "method", ["cramer-10", "mean-embedding-no-prior-1", "private-evolution-1"]
)
def test_arithmetic_is_counted_for_every_kind_of_method(method, small_fits):
    config = Config.from_table(dict(rows_of("digits")[method].settings))
    assert participation_flops(config, num_classes=10) > 0


@pytest.mark.parametrize("classes", table4_rows.CLASSES)
def test_rows_have_the_same_writers_and_their_own_trust_and_epsilon(classes):
    rows = rows_of(classes)
    same = ("dataset", "classes", "min_images_per_writer", "evaluation_samples")
    paper = Config.from_table(dict(rows["gs-wgan"].settings)).shared
    for name, row in rows.items():
        config = Config.from_table(dict(row.settings))
        shared = config.shared
        for key in same:
            assert getattr(shared, key) == getattr(paper, key), (name, key)
        assert shared.neighboring_relation == "replace-one"
        trained = name == "gs-wgan" or (name.startswith("fedavg-gan") and "prior" not in name)
        assert (config.own.prior == "none") == ("no-prior" in name or trained)
        published = name in ("gs-wgan", "fedavg-gan", "fedavg-gan-prior")
        assert (shared.noise_stddev > 0) == published
        if not published:
            assert shared.epsilon == float(name.rpartition("-")[2])
            assert (shared.delta, shared.cohort_size) == (1e-5, table4_rows.POPULATION[classes])
        if name.startswith("fedavg-gan"):
            assert shared.rounds * shared.cohort_size <= table4_rows.UPDATES
        trust = "central" if name.startswith("fedavg-gan") else "secure-aggregation"
        trust = "secure-aggregation" if "secure" in name else trust
        trust = "local" if name == "gs-wgan" or "local" in name else trust
        assert shared.trust == trust, name
    assert {name for pair in RIVALS for name in pair} <= set(rows)
    assert Path(table4_rows.CONFIGS).is_dir()

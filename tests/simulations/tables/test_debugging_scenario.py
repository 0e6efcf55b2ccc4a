"""The debugging scenario on a small scale: two real runs on blocks of real digits."""

import json

import pytest

from fed_gswgan.data.registry import DataSettings, is_swapped, open_source
from fed_gswgan.evaluation import classifier
from simulations import run
from simulations.tables import debugging_scenario
from simulations.tables.debugging_scenario import main, split_writers


def test_a_deployed_classifier_reads_exactly_the_swapped_writers_badly():
    source = open_source(DataSettings(classes="digits", swapped_share=0.5))
    parts = split_writers(source, 0.7)
    assert all(is_swapped(writer, 0.5) for writer in parts["badly"])
    assert not any(is_swapped(writer, 0.5) for writer in parts["well"])
    assert sorted(parts["well"] + parts["badly"]) == sorted(source.writer_ids)


def test_a_threshold_that_leaves_a_part_empty_is_named(monkeypatch):
    monkeypatch.setattr(classifier, "STEPS_PER_CLASS", 1)
    source = open_source(DataSettings(classes="digits"))
    with pytest.raises(ValueError, match=r"threshold=0\.0: no writer is read badly"):
        split_writers(source, 0.0)


def test_the_two_generators_show_which_writers_are_swapped(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "available_cores", lambda: 1)  # no worker processes
    config = tmp_path / "small.toml"
    config.write_text(
        'dataset = "digits"\nclasses = "digits"\nswapped-share = 0.5\nrounds = 25\n'
        "cohort-size = 7\nbatch-size = 32\ngenerator-width = 8\nlatent-dim = 8\n"
        'critic = "mlp"\ncritic-width = 64\nnoise-source = "seeded"\nsamples-every = 100\n'
        "noise-stddev = 2.14\ngenerator-learning-rate = 5e-3\nevaluation-samples = 0\n"
    )

    def known_parts(source, threshold):
        swapped = {writer: is_swapped(writer, 0.5) for writer in source.writer_ids}
        badly = tuple(writer for writer in swapped if swapped[writer])
        return {"well": tuple(w for w in swapped if not swapped[w]), "badly": badly}

    monkeypatch.setattr(debugging_scenario, "split_writers", known_parts)  # takes longer
    main(config, tmp_path / "out", runtime="in-process")
    found = json.loads((tmp_path / "out" / "debugging.json").read_text())
    assert found["well"]["mean_ink"] < 0.35
    assert found["badly"]["mean_ink"] > 0.65
    assert found["swapped"] is True
    assert (tmp_path / "out" / "samples.png").stat().st_size > 10_000

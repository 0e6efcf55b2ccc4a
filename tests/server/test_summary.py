"""Epsilon of a run under central trust, while the selection stays secret."""

import json
from types import SimpleNamespace

import pytest

from fed_gswgan.accounting.sampled import SampledRounds, fixed_size_epsilon, poisson_epsilon
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from server.summary import amplified_epsilon

SPEC = DataSpec((1, 28, 28), 10)
LINES = [{"asked": 2, "population": 8, "left_out": 0, "failed": 0}] * 5


def amplified(lines=LINES, releases=10, **changed):
    table = {
        "trust": "central", "algorithm": "fedavg-gan", "cohort-size": 2, "noise-stddev": 4.0,
    } | {key.replace("_", "-"): value for key, value in changed.items()}  # fmt: skip
    config = Config.from_table(table)
    ledger = SimpleNamespace(releases=releases)
    strategy = SimpleNamespace(config=config, event=config.event(SPEC), ledger=ledger)
    return amplified_epsilon(strategy, lines)


@pytest.mark.parametrize(
    ("sampling", "relation", "mu", "epsilon_of_rounds"),
    [
        ("fixed-size", "replace-one", 2 / 4, fixed_size_epsilon),
        ("poisson", "zero-out", 1 / 4, poisson_epsilon),
    ],
)
def test_it_is_that_of_so_many_sampled_rounds(sampling, relation, mu, epsilon_of_rounds):
    found, why_not = amplified(sampling_method=sampling, neighboring_relation=relation)
    rounds = SampledRounds(mu=mu, sampling_probability=2 / 8, rounds=5)
    assert (found, why_not) == (pytest.approx(epsilon_of_rounds([rounds], 1e-5)), "")


@pytest.mark.parametrize(
    ("changed", "why_not"),
    [
        ({"algorithm": "gs-wgan", "critic": "mlp"}, "clients remember earlier rounds"),
        ({"lines": [*LINES[1:], LINES[0] | {"left_out": 1}]}, "left out of the draw"),
        ({"lines": [*LINES[1:], LINES[0] | {"failed": 1}]}, "left out of the draw"),
        ({"lines": [*LINES[1:], LINES[0] | {"population": 9}]}, "the population changed"),
        ({"releases": 12}, "a round was asked again"),
        ({"neighboring_relation": "zero-out"}, "does not go with"),
    ],
)
def test_where_the_selection_is_not_secret_or_has_no_proof_there_is_none(changed, why_not):
    found, said = amplified(**changed)
    assert found is None
    assert why_not in said


def test_a_run_of_critics_that_start_from_a_snapshot_prints_all_three(small_run):
    folder = small_run(trust="central", critic_state="snapshot", cohort_size=2)
    privacy = json.loads((folder / "summary.json").read_text())["privacy"]
    assert 0 < privacy["epsilon_amplified"] < privacy["epsilon_max"]
    said = "\n".join(privacy["statement"])
    assert f"who was asked, epsilon = {privacy['epsilon_amplified']:.4g}" in said
    assert "Against the server itself epsilon is infinite" in said

import json
import math
from pathlib import Path

import pytest

from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.cli import main

KNOWN = json.loads(
    (Path(__file__).parents[1] / "accounting" / "known_epsilons.json").read_text(encoding="utf-8")
)
REPLY = ["--samples", "32", "--noise-stddev", "2.14", "--delta", "1e-5"]
REPLACE = ["--neighboring", "replace-one"]
ZERO = ["--neighboring", "zero-out"]
LOCAL = [*REPLY, *REPLACE, "--trust", "local", "--participations", "20"]
SECURE = [*REPLY, *REPLACE, "--trust", "secure-aggregation", "--participations", "20"]
SAMPLED = [*REPLY, "--population", "1000", "--cohort", "1", "--rounds", "200"]
CENTRAL = [*SAMPLED, "--trust", "central"]
FIXED = [*CENTRAL, *REPLACE, "--sampling", "fixed-size"]
PAPER = [*REPLY, *REPLACE, "--trust", "paper", "--population", "1000", "--cohort", "1"]
PAPER += ["--rounds", "20000"]


def found(capsys, *arguments):
    assert main(["privacy", "epsilon", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    try:
        status = main(["privacy", "epsilon", *arguments, "--json"])
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


# Each was computed by at least two programs elsewhere; a tolerance is of what they differ by.
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known["id"])
def test_known_epsilons(capsys, known):
    result = found(capsys, *known["command"].split())
    assert result["epsilon"] == pytest.approx(known["epsilon"], rel=known["tolerance"])


@pytest.mark.parametrize(
    "arguments", [LOCAL, SECURE, FIXED, [*CENTRAL, *ZERO, "--sampling", "revealed"], PAPER]
)
def test_the_keys_to_read_an_epsilon_are_always_there(capsys, arguments):
    result = found(capsys, *arguments)
    for key in ("epsilon", "delta", "mu", "noise_multiplier", "method", "trust_model"):
        assert key in result
    assert result["unit"] == "user"
    assert result["neighboring_relation"] in ("replace-one", "zero-out")
    assert result["must_be_believed"]
    assert result["mu"] * result["noise_multiplier"] == pytest.approx(1)


def test_central_says_what_its_mu_counts_and_what_it_stands_on(capsys):
    result = found(capsys, *FIXED)
    assert result["mu"] == pytest.approx(2 * 32**0.5 / 2.14)
    assert result["mu_of"] == "one round"
    assert result["critic_state"] == "snapshot"
    assert "critic-state=snapshot" in result["must_be_believed"]
    assert result["sampling_probability"] == 0.001


def test_secure_aggregation_also_says_what_is_left_alone(capsys):
    result = found(capsys, *SECURE, "--honest", "90")
    assert result["honest"] == 90
    assert result["epsilon_alone"] == pytest.approx(379.4170606158102, rel=1e-6)
    assert result["epsilon"] < 20
    assert found(capsys, *SECURE)["epsilon"] == result["epsilon_alone"]
    assert main(["privacy", "epsilon", *SECURE, "--honest", "90"]) == 0
    assert "epsilon_alone: 379.4170" in capsys.readouterr().out


def test_the_published_ten_comes_with_the_true_epsilons(capsys):
    result = found(capsys, *PAPER)
    assert result["epsilon"] == pytest.approx(9.992624296723676, rel=1e-3)
    assert result["true_epsilon"] == pytest.approx(346.656, rel=2e-3)
    assert result["true_epsilon_persistent_critics"] == pytest.approx(610.3442532, rel=1e-6)


def test_nobody_can_read_the_published_ten_as_the_truth(capsys):
    assert main(["privacy", "epsilon", *PAPER]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epsilon: 346.6")
    assert lines[1].startswith("epsilon: 610.3")
    assert lines[2].startswith("The published formula says 9.99")
    assert "NO GUARANTEE" in lines[2]
    assert not any("9.99" in line for line in lines[:2] + lines[3:])


def test_a_delta_above_one_over_the_population_is_warned_of(capsys):
    assert found(capsys, *LOCAL, "--population", "50000")["warnings"] == []
    assert main(["privacy", "epsilon", *LOCAL, "--population", "200000", "--json"]) == 0
    said = capsys.readouterr()
    (warning,) = json.loads(said.out)["warnings"]
    assert warning.startswith("delta=1e-05 is larger than 1/200000")
    assert warning in said.err


def test_no_participation_costs_nothing(capsys):
    for arguments in (LOCAL, [*SECURE, "--honest", "9"]):
        assert found(capsys, *arguments, "--participations", "0")["epsilon"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*LOCAL, "--honest", "1"], "honest=1 plays no part under trust=local"),
        ([*LOCAL, "--rounds", "9"], "rounds=9 plays no part under trust=local"),
        ([*LOCAL, "--cohort", "9"], "cohort=9 plays no part under trust=local"),
        ([*LOCAL, "--sampling", "poisson"], "sampling=poisson plays no part under trust=local"),
        ([*SECURE, "--sampling-probability", "0.1"], "sampling-probability=0.1 plays no part"),
        ([*FIXED, "--participations", "9"], "participations=9 plays no part under trust=central"),
        ([*FIXED, "--honest", "9"], "honest=9 plays no part under trust=central"),
        ([*CENTRAL, *REPLACE], "sampling must be given under trust=central"),
        ([*CENTRAL, *REPLACE, "--sampling", "poisson"], "sampling=poisson does not go with neigh"),
        ([*CENTRAL, *ZERO, "--sampling", "fixed-size"], "sampling=fixed-size does not go with nei"),
        ([*FIXED, "--critic-state", "persistent"], "critic-state=persistent does not go with samp"),
        ([*FIXED, "--sampling-probability", "0.1"], "cohort=1 says what sampling-probability=0.1"),
        ([*FIXED, "--cohort", "1001"], "cohort=1001 must be at most population=1000"),
        ([*FIXED, "--cohort", "0"], "cohort=0 must"),
        ([*FIXED, "--rounds", "0"], "rounds=0 must"),
        ([*FIXED, "--population", "-5"], "population=-5 must"),
        ([*FIXED, "--delta", "nan"], "delta=nan must"),
        ([*PAPER, "--sampling", "revealed"], "sampling=revealed does not go with neighboring=repl"),
        ([*PAPER, "--neighboring", "zero-out"], "sampling=fixed-size does not go with neighbori"),
        ([*LOCAL, "--noise-stddev", "-1"], "noise-stddev=-1.0 must"),
        ([*LOCAL, "--delta", "0"], "delta=0.0 must"),
        ([*LOCAL, "--delta", "1"], "delta=1.0 must"),
        ([*LOCAL, "--participations", "1.5"], "argument --participations"),
        ([*LOCAL, "--participations", "1" + 400 * "0"], "too large"),
        ([*LOCAL, "--trust", "nobody"], "argument --trust: invalid choice: 'nobody'"),
        (LOCAL[:-2], "participations must be given under trust=local"),
        (LOCAL[2:], "the following arguments are required: --samples"),
        (LOCAL[:2] + LOCAL[4:], "noise-stddev must be given"),
    ],
)
def test_nonsense_is_refused_in_one_line(capsys, arguments, said):
    assert said in refused(capsys, *arguments)


@pytest.mark.parametrize("probability", ["0", "1.5", "-0.1", "nan", "inf"])
def test_an_impossible_sampling_probability_is_named(capsys, probability):
    central = [*REPLY, *ZERO, "--trust", "central", "--sampling", "poisson", "--rounds", "9"]
    said = refused(capsys, *central, "--sampling-probability", probability)
    assert f"sampling-probability={float(probability)} must lie in (0, 1]" in said
    assert "sampling-probability must be given under trust=central" in refused(capsys, *central)


def test_what_finite_arithmetic_adds_to_delta_is_printed_where_devices_add_the_noise(capsys):
    counted = [*REPLY, *REPLACE, "--participations", "240"]
    assert main(["privacy", "epsilon", "--trust", "local", *counted, "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    expected = finite_arithmetic_log10_delta(240 * 32 * 784, local["epsilon"])
    assert local["delta_of_finite_arithmetic_log10"] == expected
    assert expected < math.log10(1e-5) - 2  # below a hundredth of delta

    secure = ["privacy", "epsilon", "--trust", "secure-aggregation", "--honest", "10", *counted]
    assert main([*secure, "--pixels", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = finite_arithmetic_log10_delta(10 * 240 * 32 * 100, found["epsilon"])
    assert found["delta_of_finite_arithmetic_log10"] == expected

    assert main(["privacy", "epsilon", "--trust", "local", *counted, "--pixels", "0"]) == 2
    assert "pixels=0" in capsys.readouterr().err

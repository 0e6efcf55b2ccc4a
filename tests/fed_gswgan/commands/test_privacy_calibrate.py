import json

import pytest

from fed_gswgan.accounting import calibrate
from fed_gswgan.cli import main
from fed_gswgan.commands import privacy

COMMON = ["--samples", "32", "--delta", "1e-5"]
REPLACE = ["--neighboring", "replace-one"]
LOCAL = [*COMMON, *REPLACE, "--trust", "local"]
SECURE = [*COMMON, *REPLACE, "--trust", "secure-aggregation", "--honest", "90"]
CENTRAL = [*COMMON, *REPLACE, "--trust", "central", "--sampling", "fixed-size"]
CENTRAL += ["--population", "1000", "--cohort", "10"]
NOISE = ["--noise-stddev", "20"]


def run(capsys, command, *arguments):
    assert main(["privacy", command, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (LOCAL, ["--participations", "30"]),
        (SECURE, ["--participations", "30"]),
        (CENTRAL, ["--rounds", "300"]),
    ],
)
def test_the_noise_found_gives_the_epsilon_it_says(capsys, arguments, count):
    target = ["--epsilon", "5", "--find", "noise-stddev"]
    found = run(capsys, "calibrate", *target, *arguments, *count)
    noise = ["--noise-stddev", repr(found["noise_stddev"])]
    assert found["target_epsilon"] == 5.0
    assert 4.99 < found["epsilon"] <= 5.0
    assert run(capsys, "epsilon", *arguments, *count, *noise)["epsilon"] == found["epsilon"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(LOCAL, "participations"), (SECURE, "participations"), (CENTRAL, "rounds")],
)
def test_the_count_found_gives_the_epsilon_it_says(capsys, arguments, name):
    target = ["--epsilon", "5", "--find", "participations"]
    found = run(capsys, "calibrate", *target, *arguments, *NOISE)
    assert found[name] > 0
    assert found["epsilon"] <= 5.0
    more = str(found[name] + 1 + found[name] // 1000)
    assert run(capsys, "epsilon", *arguments, *NOISE, f"--{name}", more)["epsilon"] > 5.0


@pytest.mark.parametrize(("arguments", "name"), [(LOCAL, "participations"), (CENTRAL, "rounds")])
def test_none_is_affordable_where_one_costs_more(capsys, arguments, name):
    target = ["--epsilon", "0.5", "--find", "participations", "--noise-stddev", "2"]
    found = run(capsys, "calibrate", *target, *arguments)
    assert (found[name], found["epsilon"], found["noise_multiplier"]) == (0, 0.0, None)
    assert found["epsilon_of_one"] > 0.5


def test_an_unfinished_search_for_rounds_is_warned_of(capsys, monkeypatch):
    for module in (calibrate, privacy):
        monkeypatch.setattr(module, "LARGEST_ROUNDS", 64)
    target = ["--epsilon", "5", "--find", "participations"]
    found = run(capsys, "calibrate", *target, *CENTRAL, *NOISE)
    assert found["rounds"] == 64
    assert found["warnings"] == ["more than 64 rounds were not tried"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*LOCAL, "--participations", "3", *NOISE], "noise-stddev=20.0 is what find=noise-stddev"),
        ([*LOCAL], "participations must be given under trust=local"),
        ([*LOCAL, "--participations", "3", "--epsilon", "0"], "epsilon=0.0 must"),
        ([*CENTRAL, "--rounds", "3", "--trust", "paper"], "trust=paper is no guarantee"),
        ([*CENTRAL, "--rounds", "3", "--critic-state", "persistent"], "critic-state=persistent"),
        ([*LOCAL, "--participations", "1" + 17 * "0"], "needs noise-stddev=3.19084e+09"),
        ([*LOCAL, "--find", "participations"], "noise-stddev must be given"),
        (
            [*LOCAL, "--find", "participations", *NOISE, "--participations", "3"],
            "participations=3 is what find=participations looks for",
        ),
    ],
)
def test_nonsense_is_named(capsys, arguments, said):
    target = ["--epsilon", "5", "--find", "noise-stddev"]
    assert main(["privacy", "calibrate", *target, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fed_gswgan.accounting import calibrate
from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.cli import main
from fed_gswgan.device.folder import DeviceSettings, create_device
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.noise import SecureNoise

KNOWN = json.loads(
    (Path(__file__).parents[1] / "accounting" / "known_epsilons.json").read_text(encoding="utf-8")
)
REPLY = ["--samples", "32", "--noise-stddev", "2.14", "--delta", "1e-5"]
REPLACE = ["--neighboring", "replace-one"]
ZERO = ["--neighboring", "zero-out"]
LOCAL = [*REPLY, *REPLACE, "--trust", "local", "--participations", "20"]
SECURE = [*REPLY, *REPLACE, "--trust", "secure-aggregation", "--participations", "20"]
CENTRAL = [*REPLY, "--population", "1000", "--cohort", "1", "--rounds", "200", "--trust", "central"]
FIXED = [*CENTRAL, *REPLACE, "--sampling", "fixed-size"]
UNKNOWN = [*REPLY, *ZERO, "--trust", "central", "--sampling", "poisson", "--rounds", "9"]
PAPER = [*REPLY, *REPLACE, "--trust", "paper", "--population", "1000", "--cohort", "1"]
PAPER += ["--rounds", "20000"]


def found(capsys, command, *arguments):
    assert main(["privacy", command, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, command, *arguments):
    assert main(["privacy", command, *arguments, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


# -- epsilon


# Each was computed by at least two programs elsewhere; a tolerance is of what they differ by.
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known["id"])
def test_known_epsilons(capsys, known):
    result = found(capsys, "epsilon", *known["command"].split())
    assert result["epsilon"] == pytest.approx(known["epsilon"], rel=known["tolerance"])


def test_the_published_ten_is_not_read_as_the_truth(capsys):
    result = found(capsys, "epsilon", *PAPER)
    assert result["epsilon"] == pytest.approx(9.992624296723676, rel=1e-3)
    assert result["true_epsilon"] == pytest.approx(346.656, rel=2e-3)
    assert result["true_epsilon_persistent_critics"] == pytest.approx(610.3442532, rel=1e-6)
    assert main(["privacy", "epsilon", *PAPER]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epsilon: 346.6")
    assert lines[1].startswith("epsilon: 610.3")
    assert lines[2].startswith("The published formula says 9.99")
    assert "NO GUARANTEE" in lines[2]
    assert not any("9.99" in line for line in lines[:2] + lines[3:])


def test_a_delta_above_one_over_the_population_is_warned_of(capsys):
    assert found(capsys, "epsilon", *LOCAL, "--population", "50000")["warnings"] == []
    assert main(["privacy", "epsilon", *LOCAL, "--population", "200000", "--json"]) == 0
    said = capsys.readouterr()
    (warning,) = json.loads(said.out)["warnings"]
    assert warning.startswith("delta=1e-05 is larger than 1/200000")
    assert warning in said.err


@pytest.mark.parametrize("arguments", [LOCAL, [*SECURE, "--honest", "90"], FIXED, PAPER])
def test_an_epsilon_says_what_it_is_of(capsys, arguments):
    result = found(capsys, "epsilon", *arguments)
    assert result.keys() >= {"delta", "mu_of", "method", "trust_model", "must_be_believed"}
    assert (result["unit"], result["neighboring_relation"]) == ("user", "replace-one")
    assert result["mu"] * result["noise_multiplier"] == pytest.approx(1)
    if "--honest" in arguments:
        assert result["epsilon_alone"] == pytest.approx(379.4170606158102, rel=1e-6)
    if "central" in arguments:
        assert result["mu"] == pytest.approx(2 * 32**0.5 / 2.14)
        assert "critic-state=snapshot" in result["must_be_believed"]


def test_no_participation_costs_nothing(capsys):
    result = found(capsys, "epsilon", *LOCAL, "--participations", "0")
    assert (result["epsilon"], result["noise_multiplier"]) == (0, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*LOCAL, "--honest", "1"], "honest=1 plays no part under trust=local"),
        ([*LOCAL, "--cohort", "9"], "cohort=9 plays no part under trust=local"),
        ([*SECURE, "--sampling-probability", "0.1"], "sampling-probability=0.1 plays no part"),
        ([*FIXED, "--participations", "9"], "participations=9 plays no part under trust=central"),
        ([*CENTRAL, *REPLACE], "sampling must be given under trust=central"),
        ([*CENTRAL, *REPLACE, "--sampling", "poisson"], "sampling=poisson does not go with neigh"),
        ([*FIXED, "--critic-state", "persistent"], "critic-state=persistent does not go with samp"),
        ([*FIXED, "--sampling-probability", "0.1"], "cohort=1 says what sampling-probability=0.1"),
        ([*FIXED, "--cohort", "1001"], "cohort=1001 must be at most population=1000"),
        ([*FIXED, "--cohort", "0"], "cohort=0 must"),
        ([*FIXED, "--rounds", "0"], "rounds=0 must"),
        ([*FIXED, "--population", "-5"], "population=-5 must"),
        ([*FIXED, "--delta", "nan"], "delta=nan must"),
        ([*PAPER, "--neighboring", "zero-out"], "sampling=fixed-size does not go with neighbori"),
        (
            [*UNKNOWN, "--sampling-probability", "1.5"],
            "sampling-probability=1.5 must lie in",
        ),
        (
            [*UNKNOWN, "--sampling-probability", "nan"],
            "sampling-probability=nan must lie in",
        ),
        (UNKNOWN, "sampling-probability must be given under trust=central"),
        ([*LOCAL, "--noise-stddev", "-1"], "noise-stddev=-1.0 must"),
        ([*LOCAL, "--noise-stddev", "nan"], "noise-stddev=nan must"),
        ([*LOCAL, "--noise-stddev", "1e9"], "noise-stddev=1000000000.0 must"),
        ([*LOCAL, "--samples", "0"], "samples=0 must"),
        ([*LOCAL, "--samples", "1000000000"], "samples=1000000000 must"),
        ([*LOCAL, "--participations", "-3"], "participations=-3 must"),
        ([*LOCAL, "--delta", "0"], "delta=0.0 must"),
        ([*LOCAL, "--participations", "1.5"], "Invalid value for '--participations'"),
        ([*LOCAL, "--participations", "1" + 400 * "0"], "too large"),
        ([*LOCAL, "--pixels", "0"], "pixels=0 must"),
        (
            [*LOCAL, "--trust", "nobody"],
            "Invalid value for '--trust': 'nobody' is not one of",
        ),
        (LOCAL[:-2], "participations must be given under trust=local"),
        (LOCAL[2:], "Missing option '--samples'"),
        (REPLY + REPLACE, "Missing option '--trust'. Choose from: local, secure-aggregation"),
        (LOCAL[:2] + LOCAL[4:], "noise-stddev must be given"),
    ],
)
def test_nonsense_is_refused_in_one_line(capsys, arguments, said):
    assert said in refused(capsys, "epsilon", *arguments)


@pytest.mark.parametrize(
    ("arguments", "coordinates"),
    [(LOCAL, 20 * 32 * 784), ([*SECURE, "--honest", "10", "--pixels", "100"], 10 * 20 * 32 * 100)],
)
def test_finite_arithmetic_is_shown_where_devices_add_the_noise(capsys, arguments, coordinates):
    result = found(capsys, "epsilon", *arguments)
    expected = finite_arithmetic_log10_delta(coordinates, result["epsilon"])
    assert result["delta_of_finite_arithmetic_log10"] == expected
    assert expected < math.log10(1e-5) - 2  # below a hundredth of delta


# -- calibrate

COMMON = ["--samples", "32", "--delta", "1e-5", *REPLACE]
FIND_LOCAL = [*COMMON, "--trust", "local"]
FIND_SECURE = [*COMMON, "--trust", "secure-aggregation", "--honest", "90"]
FIND_CENTRAL = [*COMMON, "--trust", "central", "--sampling", "fixed-size"]
FIND_CENTRAL += ["--population", "1000", "--cohort", "10"]
NOISE = ["--noise-stddev", "20"]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (FIND_LOCAL, ["--participations", "30"]),
        (FIND_SECURE, ["--participations", "30"]),
        (FIND_CENTRAL, ["--rounds", "300"]),
    ],
)
def test_the_noise_found_gives_the_epsilon_it_says(capsys, arguments, count):
    target = ["--epsilon", "5", "--find", "noise-stddev"]
    result = found(capsys, "calibrate", *target, *arguments, *count)
    noise = ["--noise-stddev", repr(result["noise_stddev"])]
    assert result["target_epsilon"] == 5.0
    assert 4.99 < result["epsilon"] <= 5.0
    again = found(capsys, "epsilon", *arguments, *count, *noise)
    assert again["epsilon"] == result["epsilon"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(FIND_LOCAL, "participations"), (FIND_SECURE, "participations"), (FIND_CENTRAL, "rounds")],
)
def test_the_count_found_gives_the_epsilon_it_says(capsys, arguments, name):
    target = ["--find", "participations", "--epsilon"]
    result = found(capsys, "calibrate", *target, "5", *arguments, *NOISE)
    assert result[name] > 0
    assert result["epsilon"] <= 5.0
    more = [f"--{name}", str(result[name] + 1 + result[name] // 1000)]
    assert found(capsys, "epsilon", *arguments, *NOISE, *more)["epsilon"] > 5.0
    none = found(capsys, "calibrate", *target, "0.01", *arguments, "--noise-stddev", "2")
    assert (none[name], none["epsilon"], none["noise_multiplier"]) == (0, 0.0, None)
    assert none["epsilon_of_one"] > 0.01


def test_where_finite_arithmetic_adds_more_than_delta_there_is_no_guarantee(capsys):
    words = "--trust local --noise-stddev 0.01 --samples 32 --participations 9 --delta 1e-5"
    assert main(["privacy", "epsilon", *words.split(), "--neighboring", "replace-one"]) == 0
    assert "adds more than delta=1e-05 to delta: an epsilon this large is no guarantee" in (
        capsys.readouterr().err
    )


def test_an_unfinished_search_for_rounds_is_warned_of(capsys, monkeypatch):
    monkeypatch.setattr(calibrate, "LARGEST_ROUNDS", 64)
    target = ["--epsilon", "5", "--find", "participations"]
    result = found(capsys, "calibrate", *target, *FIND_CENTRAL, *NOISE)
    assert result["rounds"] == 64
    assert result["warnings"] == ["more than 64 rounds were not tried"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*FIND_LOCAL, "--participations", "3", *NOISE], "noise-stddev=20.0 is what find=noise-st"),
        ([*FIND_LOCAL], "participations must be given under trust=local"),
        ([*FIND_LOCAL, "--participations", "3", "--epsilon", "0"], "epsilon=0.0 must"),
        ([*FIND_CENTRAL, "--rounds", "3", "--trust", "paper"], "trust=paper is no guarantee"),
        ([*FIND_CENTRAL, "--rounds", "3", "--critic-state", "persistent"], "critic-state=persist"),
        ([*FIND_LOCAL, "--participations", "1" + 17 * "0"], "needs noise-stddev=3.19084e+09"),
        ([*FIND_LOCAL, "--find", "participations"], "noise-stddev must be given"),
        (
            [*FIND_LOCAL, "--find", "participations", *NOISE, "--participations", "3"],
            "participations=3 is what find=participations looks for",
        ),
    ],
)
def test_an_impossible_target_is_named(capsys, arguments, said):
    target = ["--epsilon", "5", "--find", "noise-stddev"]
    assert said in refused(capsys, "calibrate", *target, *arguments)


# -- table


def test_the_default_populations_and_their_epsilons(capsys):
    result = found(capsys, "table")
    rows = {row["population"]: row for row in result["rows"]}
    assert list(rows) == [100, 1_000, 10_000, 100_000, 1_000_000]
    assert rows[100_000]["local_sample"] == pytest.approx(37.1, rel=2e-3)
    assert rows[100_000]["local_message"] == pytest.approx(4.29, rel=2e-3)
    assert rows[100_000]["secure_aggregation"] == pytest.approx(2.4, rel=2e-3)
    assert rows[100_000]["central"] == pytest.approx(0.0699, rel=3e-3)
    assert rows[100]["participations"] == 1000
    assert "critic-state=snapshot" in result["must_be_believed"]["central"]


def test_the_table_is_printed_and_drawn(capsys, tmp_path):
    path = tmp_path / "reachable.png"
    populations = ["--populations", "100000,50", *ZERO, "--plot", str(path)]
    assert main(["privacy", "table", *populations]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:6] == ["100,000", "100", "3.16e-06", "1", "14.8", "1.97"]
    assert lines[4].split()[:4] == ["50", "50", "0.0135", "1,000"]
    assert len(lines[3]) == len(lines[4])
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--populations", "1"], "population=1 must"),
        (["--populations", "100,x"], "populations=100,x must be whole numbers"),
        (["--rounds", "0"], "rounds=0 must"),
        (["--cohort", "-1"], "cohort=-1 must"),
        (["--samples", "0"], "samples=0 must"),
        (["--noise-stddev", "nan"], "noise-stddev=nan must"),
        (["--plot", "table.pdf"], "plot=table.pdf must end in .png"),
    ],
)
def test_an_impossible_table_is_named(capsys, arguments, said):
    assert said in refused(capsys, "table", *arguments)


# -- explain


def test_a_reader_can_recompute_epsilon_from_what_is_printed(small_run, tmp_path, capsys):
    run = small_run(rounds=3, cohort_size=4)
    capsys.readouterr()
    epsilon = json.loads((run / "summary.json").read_text())["privacy"]["epsilon_max"]
    result = found(capsys, "explain", str(run))
    assert (result["epsilon"], result["participations"]) == (epsilon, 3)

    clients = shutil.copytree(run / "clients", tmp_path / "elsewhere")
    assert main(["privacy", "explain", str(run), "--clients", str(clients)]) == 0
    text = capsys.readouterr().out
    count, rows = map(int, re.search(r"(\d+) releases of B = (\d+) rows", text).groups())
    noise = float(re.search(r"standard deviation ([\d.]+) C", text).group(1))
    mu = float(re.search(r"^   mu = .* = ([\d.]+)$", text, re.M).group(1))
    assert mu == pytest.approx((count * rows) ** 0.5 * 2 / noise, rel=1e-6)
    # By hand: mu^2 / 2 + mu x 4.26489, a little above.
    assert epsilon < mu**2 / 2 + mu * 4.26489 < 1.1 * epsilon
    assert "protects nobody" in text
    command = re.search(r"fed-gswgan privacy epsilon (.*)$", text, re.M).group(1)
    again = found(capsys, "epsilon", *command.split())["epsilon"]
    assert again == pytest.approx(epsilon, rel=1e-12)


def test_a_folder_that_holds_no_run_is_named(tmp_path, capsys):
    assert "run.json" in refused(capsys, "explain", str(tmp_path / "gone"))


# -- audit

AUDIT = ["privacy", "audit", "--repeats", "50", "--draws", "500000"]


def test_the_sanitizer_of_this_machine_is_not_refuted(capsys):
    assert main(AUDIT) == 0
    printed = capsys.readouterr()
    assert "VIOLATION" not in printed.out
    assert "all rows 10^30 times the bound (replace-one, sample, B=32)" in printed.out
    assert "0 violations in 85 attempts." in printed.out
    assert "An audit can only refute" in printed.out
    assert printed.err == ""


def test_half_the_noise_is_a_verdict_against(capsys, monkeypatch):
    draw = SecureNoise.draw

    def half(self, values, stddev, step):
        return draw(self, values, stddev / 2, step)

    monkeypatch.setattr(SecureNoise, "draw", half)
    assert main(AUDIT) == 1
    assert "VIOLATION  noise: variance" in capsys.readouterr().out


def test_a_number_of_repeats_that_judges_nothing_is_refused(capsys):
    assert "repeats=1" in refused(capsys, "audit", "--repeats", "1")
    assert "draws=0" in refused(capsys, "audit", "--draws", "0")


def test_the_guard_of_a_device_is_audited_by_its_folder(tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "d.npz", images=np.ones((2, 28, 28), np.uint8), labels=np.arange(2))
    device = DeviceSettings(
        name="alice", data=str(tmp_path / "d.npz"), training={"clipping": "message"}
    )
    create_device(tmp_path / "device", device, None)
    command = [*AUDIT, "--device", str(tmp_path / "device")]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "made-up images: 64 releases in each world" in printed.out
    assert "ok         law of a release: local, 40 images" in printed.out
    assert printed.err == ""
    with Ledger(tmp_path / "device") as ledger:
        assert ledger.verify() == 0
    constant = np.random.Generator(np.random.Philox(key=7)).standard_normal
    monkeypatch.setattr(
        SecureNoise,
        "draw",
        lambda self, values, stddev, step: np.rint((values + 9 * constant()) / step).astype(int),
    )
    assert main(command) == 1
    assert "VIOLATION" in capsys.readouterr().out

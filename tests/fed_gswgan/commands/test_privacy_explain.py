import json
import re

import pytest

from fed_gswgan.cli import main


@pytest.fixture
def run(small_run):
    return small_run(rounds=3, cohort_size=4)


def test_the_explained_epsilon_is_the_one_of_the_summary(run, capsys):
    capsys.readouterr()
    assert main(["privacy", "explain", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    privacy = json.loads((run / "summary.json").read_text())["privacy"]
    assert found["epsilon"] == privacy["epsilon_max"]
    assert (found["participations"], found["seeded_noise"]) == (3, True)


def test_a_reader_can_recompute_epsilon_from_the_printed_steps(run, capsys):
    capsys.readouterr()
    assert main(["privacy", "explain", str(run)]) == 0
    text = capsys.readouterr().out

    count, rows = map(int, re.search(r"(\d+) replies of B = (\d+) rows", text).groups())
    noise = float(re.search(r"standard deviation ([\d.]+) C", text).group(1))
    mu = float(re.search(r"^   mu = .* = ([\d.]+)$", text, re.M).group(1))
    assert mu == pytest.approx((count * rows) ** 0.5 * 2 / noise, rel=1e-6)
    # By hand: mu^2 / 2 + mu x 4.26489, a little above.
    epsilon = float(re.search(r"^epsilon = ([\d.]+)", text).group(1))
    assert epsilon < mu**2 / 2 + mu * 4.26489 < 1.1 * epsilon
    assert "protects nobody" in text


def test_a_folder_that_holds_no_run_is_named(tmp_path, capsys):
    assert main(["privacy", "explain", str(tmp_path)]) == 2
    assert "is" in capsys.readouterr().err
    assert main(["privacy", "explain", str(tmp_path / "gone")]) == 2
    assert "run.json" in capsys.readouterr().err


def test_the_clients_folder_may_lie_elsewhere(run, tmp_path, capsys):
    (run / "clients").rename(tmp_path / "elsewhere")
    assert main(["privacy", "explain", str(run)]) == 2
    capsys.readouterr()
    elsewhere = ["--clients", str(tmp_path / "elsewhere")]
    assert main(["privacy", "explain", str(run), *elsewhere]) == 0


def test_the_printed_command_gives_the_same_epsilon(run, capsys):
    capsys.readouterr()
    assert main(["privacy", "explain", str(run)]) == 0
    text = capsys.readouterr().out
    assert "What must be believed: That the device clips" in text
    command = re.search(r"fed-gswgan (privacy epsilon .*)$", text, re.M).group(1)
    assert main([*command.split(), "--json"]) == 0
    recomputed = json.loads(capsys.readouterr().out)["epsilon"]
    assert recomputed == pytest.approx(
        json.loads((run / "summary.json").read_text())["privacy"]["epsilon_max"], rel=1e-12
    )

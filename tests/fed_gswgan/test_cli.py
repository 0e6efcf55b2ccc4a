import json
import os
import re
import subprocess
import sys

import pytest

from fed_gswgan.cli import main

EPSILON = ["privacy", "epsilon", "--trust", "local", "--clipping", "sample", "--json"]
V005 = ["--noise-stddev", "2.14", "--samples", "32", "--participations", "20"]
RELATION = ["--neighboring", "replace-one", "--delta", "1e-5"]


def test_epsilon_is_the_exact_gaussians(capsys):
    assert main([*EPSILON, *V005, *RELATION]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["epsilon"] == pytest.approx(379.4170606158102, rel=1e-6)
    assert result["mu"] == pytest.approx(23.643197459202835, rel=1e-12)
    assert result["trust_model"] == "local"


def test_secure_aggregation_divides_mu_by_the_root_of_the_honest(capsys):
    secure = ["privacy", "epsilon", "--trust", "secure-aggregation", "--honest", "90", "--json"]
    v043 = ["--noise-stddev", "2.14", "--samples", "32", "--participations", "30"]

    assert main([*secure, *v043, "--neighboring", "replace-one", "--delta", "1e-4"]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["epsilon"] == pytest.approx(15.359704874265898, rel=1e-6)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--noise-stddev", "-1", "noise-stddev=-1.0"),
        ("--noise-stddev", "nan", "noise-stddev=nan"),
        ("--noise-stddev", "inf", "noise-stddev=inf"),
        ("--noise-stddev", "1e-9", "noise-stddev=1e-09"),
        ("--noise-stddev", "1e9", "noise-stddev=1000000000.0"),
        ("--samples", "0", "samples=0"),
        ("--participations", "-3", "participations=-3"),
        ("--delta", "1", "delta=1.0"),
        ("--delta", "nan", "delta=nan"),
        ("--honest", "2", "honest=2"),
    ],
)
def test_nonsense_names_the_option_and_the_value(capsys, option, value, said):
    assert main([*EPSILON, *V005, *RELATION, option, value]) == 2
    assert said in capsys.readouterr().err


def test_no_participation_costs_nothing(capsys):
    assert main([*EPSILON, *V005, *RELATION, "--participations", "0"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["epsilon"] == 0
    assert result["noise_multiplier"] is None


def test_a_data_set_is_described_in_lines(capsys):
    assert main(["data", "digits", "--classes", "digits"]) == 0
    out = capsys.readouterr().out
    assert "clients: 14" in out
    assert "held_out_images: 300" in out


def test_a_missing_data_set_says_what_to_set(capsys, monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    assert main(["data", "fed-emnist"]) == 2
    assert "FED_GSWGAN_DATA" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed:
        command = [sys.executable, "-m", "fed_gswgan.cli", "data", "digits"]
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_names_every_command_in_its_own_words_too(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    introduction, _, listed = capsys.readouterr().out.partition("positional arguments:")
    commands = re.findall(r"^    (\w+)", listed, re.MULTILINE)
    assert len(commands) == 8
    assert [name for name in commands if name not in introduction] == []

import json

import pytest

from fed_gswgan.cli import main

TABLE = ["privacy", "table"]


def test_the_default_populations_and_their_epsilons(capsys):
    assert main([*TABLE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["population"]: row for row in found["rows"]}
    assert list(rows) == [100, 1_000, 10_000, 100_000, 1_000_000]
    assert rows[100_000]["local_sample"] == pytest.approx(37.1, rel=2e-3)
    assert rows[100_000]["local_message"] == pytest.approx(4.29, rel=2e-3)
    assert rows[100_000]["secure_aggregation"] == pytest.approx(2.4, rel=2e-3)
    assert rows[100_000]["central"] == pytest.approx(0.0699, rel=3e-3)
    assert rows[100]["participations"] == 1000
    assert "critic-state=snapshot" in found["must_be_believed"]["central"]


def test_people_get_a_line_for_each_population(capsys):
    assert main([*TABLE, "--populations", "100000", "50", "--neighboring", "zero-out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:6] == ["100,000", "3.16e-06", "100", "1", "14.8", "1.97"]
    assert lines[4].split()[:4] == ["50", "0.0135", "50", "1,000"]
    assert len(lines[3]) == len(lines[4])


def test_the_picture_is_written_where_it_was_asked_for(tmp_path):
    path = tmp_path / "reachable.png"
    assert main([*TABLE, "--populations", "1000", "10000", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--populations", "1"], "population=1 must"),
        (["--rounds", "0"], "rounds=0 must"),
        (["--cohort", "-1"], "cohort=-1 must"),
        (["--samples", "0"], "samples=0 must"),
        (["--noise-stddev", "nan"], "noise-stddev=nan must"),
        (["--plot", "table.pdf"], "plot=table.pdf must end in .png"),
    ],
)
def test_nonsense_is_named(capsys, arguments, said):
    assert main([*TABLE, *arguments]) == 2
    assert said in capsys.readouterr().err

import json

import numpy as np

from fed_gswgan.cli import main
from fed_gswgan.privacy.noise_source import SecureNoise

AUDIT = ["privacy", "audit", "--repeats", "200"]


def test_sanitizer_of_this_machine_is_not_refuted(capsys):
    assert main(AUDIT) == 0
    printed = capsys.readouterr()
    assert "VIOLATION" not in printed.out
    assert "all rows 10^30 times the bound (replace-one, sample, B=32)" in printed.out
    assert "0 violations in 72 attempts." in printed.out
    assert "An audit can only refute" in printed.out
    assert printed.err == ""


def test_half_the_noise_is_a_verdict_against(capsys, monkeypatch):
    randomness = np.random.Generator(np.random.Philox(key=2))

    def half(self, values, stddev):
        return values + stddev / 2 * randomness.standard_normal(values.shape)

    monkeypatch.setattr(SecureNoise, "add_noise", half)
    assert main([*AUDIT, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "noise: variance" in found["violations"]
    assert found["repeats"] == 200

    assert main(AUDIT) == 1
    assert "VIOLATION  noise: variance" in capsys.readouterr().out


def test_a_number_of_repeats_that_judges_nothing_is_refused(capsys):
    assert main(["privacy", "audit", "--repeats", "1"]) == 2
    assert "repeats=1" in capsys.readouterr().err

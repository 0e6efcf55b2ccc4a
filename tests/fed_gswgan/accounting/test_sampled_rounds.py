import pytest

from fed_gswgan.accounting import sampled
from fed_gswgan.accounting.sampled import SampledRounds, composed_poisson_epsilon


def test_only_a_probability_of_one_is_certain():
    assert SampledRounds(mu=1.0, sampling_probability=1, rounds=2).is_certain
    assert not SampledRounds(mu=1.0, sampling_probability=0.999, rounds=2).is_certain


def test_all_kinds_of_rounds_are_named_where_they_are_refused(monkeypatch):
    monkeypatch.setattr(sampled, "LARGEST_TRANSFORM", 10**3)
    rounds = [SampledRounds(mu=1.0, sampling_probability=q, rounds=10**6) for q in (0.01, 0.02)]
    with pytest.raises(ValueError, match=r"probability=0.01 .* and .*probability=0.02 with mu=1"):
        composed_poisson_epsilon(rounds, 1e-5)


@pytest.mark.parametrize(
    ("mu", "probability", "rounds", "said"),
    [
        (0.0, 0.1, 1, "mu=0.0 must"),
        (1.0, 1.5, 1, "sampling-probability=1.5 must"),
        (1.0, 0.1, 0, "rounds=0 must"),
    ],
)
def test_nonsense_is_named(mu, probability, rounds, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        SampledRounds(mu=mu, sampling_probability=probability, rounds=rounds)

import math
from dataclasses import replace

import pytest

from fed_gswgan.accounting.sampled import (
    SampledRounds,
    fixed_size_epsilon,
    poisson_epsilon,
    revealed_epsilon,
)
from fed_gswgan.accounting.trust import (
    PERMITTED,
    CriticState,
    DeclaredRelease,
    Exposure,
    SamplingMethod,
    TrustModel,
    check_combination,
    epsilon_of,
    must_be_believed,
    privacy_spent,
    published_epsilon,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
POISSON, FIXED = SamplingMethod.POISSON, SamplingMethod.FIXED_SIZE
REVEALED = SamplingMethod.REVEALED
DELTA = 1e-5
# mu = 2 x sqrt(4) / 8 = 0.5 under replace-one, 0.25 under zero-out.
EVENT = Event(rows=4, numbers=1, bounded="sample", clipping_bound=1.0, noise_stddev=8.0)
LOCAL = {"trust": TrustModel.LOCAL, "relation": REPLACE, "participations": 9}
SECURE = {**LOCAL, "trust": TrustModel.SECURE_AGGREGATION}
CENTRAL = {
    "trust": TrustModel.CENTRAL,
    "relation": REPLACE,
    "rounds": 50,
    "sampling": FIXED,
    "sampling_probability": 0.05,
}
PAPER = {**CENTRAL, "trust": TrustModel.PAPER}

ALLOWED = {
    ("local", None, "replace-one"),
    ("local", None, "zero-out"),
    ("secure-aggregation", None, "replace-one"),
    ("secure-aggregation", None, "zero-out"),
    ("central", "poisson", "zero-out"),
    ("central", "fixed-size", "replace-one"),
    ("central", "revealed", "replace-one"),
    ("central", "revealed", "zero-out"),
    ("paper", "fixed-size", "replace-one"),
}


@pytest.mark.parametrize("trust", TrustModel)
@pytest.mark.parametrize("sampling", [None, *SamplingMethod])
@pytest.mark.parametrize("relation", NeighboringRelation)
def test_just_the_proven_combinations_pass(trust, sampling, relation):
    if (trust, sampling, relation) in ALLOWED:
        check_combination(trust, sampling, relation, None)
    else:
        with pytest.raises(ValueError, match=f"sampling={sampling} .*neighboring={relation} "):
            check_combination(trust, sampling, relation, None)


def test_a_refusal_names_what_is_permitted():
    said = "permitted: poisson with zero-out, fixed-size with replace-one, revealed with replace-"
    with pytest.raises(ValueError, match=said):
        check_combination(TrustModel.CENTRAL, POISSON, REPLACE, None)


@pytest.mark.parametrize(("sampling", "relation"), [(POISSON, ZERO), (FIXED, REPLACE)])
def test_persistent_critics_void_a_secret_selection(sampling, relation):
    check_combination(TrustModel.CENTRAL, sampling, relation, CriticState.SNAPSHOT)
    with pytest.raises(ValueError, match=f"persistent .*sampling={sampling}: .*sampling=revealed"):
        check_combination(TrustModel.CENTRAL, sampling, relation, CriticState.PERSISTENT)
    assert "critic-state=snapshot" in must_be_believed(TrustModel.CENTRAL, sampling)


@pytest.mark.parametrize(
    ("trust", "sampling"),
    [
        (TrustModel.LOCAL, None),
        (TrustModel.SECURE_AGGREGATION, None),
        (TrustModel.CENTRAL, REVEALED),
    ],
)
def test_critics_may_remember_where_nothing_is_amplified(trust, sampling):
    check_combination(trust, sampling, ZERO, CriticState.PERSISTENT)
    assert "snapshot" not in must_be_believed(trust, sampling)


def test_every_trust_model_says_against_whom_it_holds():
    for trust in TrustModel:
        said = must_be_believed(trust, PERMITTED[trust][0][0])
        assert ("no guarantee" if trust is TrustModel.PAPER else "Holds against") in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**LOCAL, "honest": 2}, "honest=2 plays no part under trust=local"),
        ({**LOCAL, "rounds": 2}, "rounds=2 plays no part under trust=local"),
        ({**SECURE, "sampling_probability": 0.1}, "sampling-probability=0.1 plays no part"),
        ({**LOCAL, "sampling": POISSON}, "sampling=poisson plays no part"),
        ({**CENTRAL, "participations": 2}, "participations=2 plays no part under trust=central"),
        ({**CENTRAL, "honest": 2}, "honest=2 plays no part under trust=central"),
        ({**LOCAL, "participations": None}, "participations must be given under trust=local"),
        ({**CENTRAL, "rounds": None}, "rounds must be given under trust=central"),
        ({**CENTRAL, "sampling": None}, "sampling must be given under trust=central"),
        ({**LOCAL, "participations": -1}, "participations=-1 must"),
        ({**LOCAL, "participations": 1.5}, "participations=1.5 must"),
        ({**SECURE, "honest": 0}, "honest=0 must"),
        ({**CENTRAL, "rounds": 0}, "rounds=0 must"),
        ({**CENTRAL, "sampling_probability": 0.0}, "sampling-probability=0.0 must"),
        ({**CENTRAL, "sampling_probability": math.nan}, "sampling-probability=nan must"),
        ({**CENTRAL, "sampling": POISSON}, "sampling=poisson does not go with"),
    ],
)
def test_an_impossible_exposure_is_named(settings, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Exposure(**settings)


def test_the_count_is_of_participations_or_of_rounds():
    assert Exposure(**LOCAL).with_count(7) == Exposure(**{**LOCAL, "participations": 7})
    assert Exposure(**CENTRAL).with_count(7) == Exposure(**{**CENTRAL, "rounds": 7})
    with pytest.raises(ValueError, match="trust=local counts participations"):
        Exposure(**LOCAL).sampled_rounds(0.5)


@pytest.mark.parametrize(
    ("settings", "mu", "beside"),
    [
        (LOCAL, 1.5, {}),  # 0.5 x sqrt(9)
        ({**LOCAL, "relation": ZERO}, 0.75, {}),
        ({**SECURE, "honest": 4}, 0.75, {"epsilon_alone": gaussian_epsilon(1.5, DELTA)}),
        (SECURE, 1.5, {"epsilon_alone": gaussian_epsilon(1.5, DELTA)}),
        ({**LOCAL, "participations": 0}, 0.0, {}),
    ],
)
def test_counted_replies_are_one_exact_gaussian(settings, mu, beside):
    spent = privacy_spent(EVENT, Exposure(**settings), DELTA)
    assert spent.mu == pytest.approx(mu)
    assert spent.noise_multiplier == (pytest.approx(1 / mu) if mu else None)
    assert spent.epsilon == pytest.approx(gaussian_epsilon(mu, DELTA), rel=1e-12)
    assert spent.beside == pytest.approx(beside, rel=1e-12)
    assert spent.table().items() >= spent.beside.items()


def expected_of(sampling, mu):
    rounds = SampledRounds(mu=mu, sampling_probability=0.05, rounds=50)
    if sampling is REVEALED:
        return revealed_epsilon(rounds, DELTA)
    return {POISSON: poisson_epsilon, FIXED: fixed_size_epsilon}[sampling]([rounds], DELTA)


@pytest.mark.parametrize(
    ("sampling", "relation", "mu"),
    [
        (POISSON, ZERO, 0.25),
        (FIXED, REPLACE, 0.5),
        (REVEALED, REPLACE, 0.5),
        (REVEALED, ZERO, 0.25),
    ],
)
def test_central_counts_rounds_of_one_mu_each(sampling, relation, mu):
    exposure = Exposure(**{**CENTRAL, "sampling": sampling, "relation": relation})
    spent = privacy_spent(EVENT, exposure, DELTA)
    assert spent.mu == pytest.approx(mu)
    assert spent.epsilon == pytest.approx(expected_of(sampling, mu), rel=1e-12)
    assert spent.table()["mu_of"] == "one round"
    assert ("critic_state" in spent.table()) is (sampling is not REVEALED)


def test_the_published_figure_never_comes_without_the_true_ones():
    spent = privacy_spent(EVENT, Exposure(**PAPER), DELTA)
    assert spent.epsilon == published_epsilon(EVENT, 0.05, 50, DELTA)
    assert spent.beside == {
        "true_epsilon": pytest.approx(expected_of(FIXED, 0.5)),
        "true_epsilon_persistent_critics": pytest.approx(expected_of(REVEALED, 0.5)),
    }


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
@pytest.mark.parametrize("settings", [LOCAL, CENTRAL, {**CENTRAL, "sampling": REVEALED}, PAPER])
def test_an_impossible_delta_is_named(settings, delta):
    with pytest.raises(ValueError, match=f"^delta={delta} must"):
        privacy_spent(EVENT, Exposure(**settings), delta)


def test_the_published_ten_comes_out():
    paper = replace(EVENT, rows=32, noise_stddev=2.14)
    assert published_epsilon(paper, 1e-3, 20000, 1e-5) == pytest.approx(9.992624296723676, rel=1e-6)
    rows = published_epsilon(replace(paper, rows=4), 1e-2, 100, 1e-5)
    assert rows == published_epsilon(replace(paper, rows=1), 1e-2, 400, 1e-5)


def test_one_order_of_the_published_formula_by_hand():
    # Noise so small that order 2 is the best: its moment is log(1 + q^2 2 e^(1 / sigma^2)).
    sigma, probability = 0.1, 0.05
    event = replace(EVENT, rows=1, noise_stddev=2 * sigma)
    expected = math.log1p(2 * probability**2 * math.exp(1 / sigma**2)) + math.log(1e5)
    assert published_epsilon(event, probability, 1, 1e-5) == pytest.approx(expected, rel=1e-12)


def release(mu, rounds=1, sampling=None, probability=1.0, relation=ZERO):
    return DeclaredRelease(
        what="a sum",
        mu=mu,
        rounds=rounds,
        relation=relation,
        sampling=sampling,
        sampling_probability=probability,
    )


def test_declared_releases_without_sampling_are_one_gaussian():
    found = epsilon_of((release(0.3, 16), release(0.5)), DELTA)
    assert found == pytest.approx(gaussian_epsilon(1.3, DELTA), rel=1e-12)


@pytest.mark.parametrize(
    ("sampling", "relation", "function"),
    [(POISSON, ZERO, poisson_epsilon), (FIXED, REPLACE, fixed_size_epsilon)],
)
def test_declared_releases_with_one_kind_of_sampling_add_up(sampling, relation, function):
    found = epsilon_of(
        (release(1.2, 300, sampling, 0.01, relation), release(0.6, relation=relation)), DELTA
    )
    parts = [
        SampledRounds(mu=1.2, sampling_probability=0.01, rounds=300),
        SampledRounds(mu=0.6, sampling_probability=1.0, rounds=1),
    ]
    assert found == function(parts, DELTA)


def test_declared_releases_that_do_not_compose_are_refused():
    alone = release(0.5, 50, REVEALED, 0.05, REPLACE)
    assert epsilon_of((alone,), DELTA) == expected_of(REVEALED, 0.5)
    for releases, said in (
        ((alone, alone), "sampling=revealed in 2 releases do not compose"),
        ((release(1.0, 5, POISSON, 0.1), release(1.0, 5, REVEALED, 0.1)), "sampling=poisson, rev"),
        ((release(1.0), release(1.0, relation=REPLACE)), "releases under different neigh"),
        ((), "releases under different neigh"),
    ):
        with pytest.raises(ValueError, match=f"^{said}"):
            epsilon_of(releases, DELTA)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0,), "mu=0.0 must"),
        ((math.inf,), "mu=inf must"),
        ((1.0, 0), "rounds=0 must"),
        ((1.0, 1, POISSON, 0.0), "sampling-probability=0.0 must"),
        ((1.0, 1, None, 0.5), "sampling-probability=0.5 must be 1 without sampling"),
        ((1.0, 1, POISSON, 0.5, REPLACE), "sampling=poisson does not go with"),
        ((1.0, 1, FIXED, 0.5, ZERO), "sampling=fixed-size does not go with"),
    ],
)
def test_an_impossible_declared_release_is_named(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        release(*arguments)

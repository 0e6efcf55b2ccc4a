"""Settings of a run: keys, ranges, combinations, and the noise that a target needs."""

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_gswgan.config import DEFAULT_EPSILON, Config, defaults, flower_table
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field.rule import AdaptationSettings, resolved
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import NeighboringRelation, compose
from fed_gswgan.privacy.refusals import BudgetExhausted

SPEC = DataSpec((1, 28, 28), 10)
ROOT = Path(__file__).parents[2]

MASKED = {"trust": "secure-aggregation", "secure-aggregation": "protocol", "cohort-size": 100}
# One value outside the range of every setting that has one.
OUT_OF_RANGE = {
    "classes": "some", "min-images-per-writer": -1, "writers-per-client": 0, "max-clients": -1,
    "virtual-clients": -1, "drawn-writers": 0, "swapped-share": 1.5, "cohort-size": 0,
    "sampling-method": "revealed",
    "min-replies": 0, "reply-timeout-seconds": 0.0, "neighboring-relation": "add-or-remove-one",
    "delta": 1.0, "max-epsilon": 0.0, "max-participations": -1, "trust": "nobody", "epsilon": -1.0,
    "noise-stddev": -1.0, "clipping-bound": 0.0, "honest-share": 0.0,
    "secure-aggregation": "secagg", "colluding-share": 1.0, "spare-rounds": -1,
    "noise-source": "numpy", "rounds": 0, "seed": -1, "checkpoint-every": 0, "samples-every": 0,
    "evaluation-samples": 1, "evaluate-every": -1, "uplink-bits": 3, "downlink-bits": 64,
    "adam-beta1": 1.0,
    "adam-beta2": -0.1, "generator": "mlp", "generator-width": 1, "latent-dim": 0,
    "latent-kind": "uniform", "generator-learning-rate": 0.0,
    "generator-learning-rate-end-factor": 1.5, "ema-halflife-steps": -1.0, "sample-contrast": 0.0,
    "critic": "resnet", "critic-width": 0, "class-embedding-stddev": -1.0,
    "critic-state": "forgetful", "critic-steps": 0, "critic-learning-rate": -1e-3,
    "gradient-penalty": -1.0, "drift-penalty": -1.0, "warm-start-steps": -1, "batch-size": 0,
    "critic-batches": -1, "clipping": "row", "dct-frequencies": -1,
    "algorithm": "fedavg", "feature-frequencies": -1, "feature-components": -1, "points": -1,
    "fit-steps": -1,
}  # fmt: skip
OF_OTHERS = {  # of another algorithm than the default
    "generator-steps": (0, "fedavg-gan"), "server-learning-rate": (0.0, "fedavg-gan"),
    "cells": (0, "private-evolution"),
}  # fmt: skip
CHECKED_WHEN_USED = {
    "dataset", "data-dir", "writers-file", "output-dir", "resume", "algorithm-settings",
    "prior", "features", "evaluation-references",
}  # fmt: skip


def calibrated(spec=SPEC, **table):
    """Return the configuration of a table, its critic trained, its noise known."""
    table = {"critic": "mlp"} | {k.replace("_", "-"): v for k, v in table.items()}
    return Config.from_table(table).with_noise(spec)


def test_a_table_without_keys_gives_the_defaults():
    config = Config.from_table({})
    assert config.to_table().items() <= defaults().items()
    assert Config.from_table(defaults()).to_table() == config.to_table()


@pytest.mark.parametrize("algorithm", ["gs-wgan", "fedavg-gan"])
def test_the_table_of_a_config_builds_that_config(algorithm):
    config = Config.from_table({"algorithm": algorithm, "rounds": 7, "critic-steps": 3})
    assert (config.shared.rounds, config.own.critic_steps) == (7, 3)
    assert Config.from_table(config.to_table()) == config


def test_every_setting_with_a_range_stands_in_the_table_above():
    assert OUT_OF_RANGE.keys() | OF_OTHERS.keys() | CHECKED_WHEN_USED == defaults().keys()


@pytest.mark.parametrize(
    ("key", "value", "algorithm"),
    [(*item, "gs-wgan") for item in OUT_OF_RANGE.items()]
    + [(key, *given) for key, given in OF_OTHERS.items()],
)
def test_a_value_out_of_range_is_named_with_its_setting(key, value, algorithm):
    with pytest.raises(ValueError, match=rf"^{key}={value!r} must |^{key}={value} must "):
        Config.from_table({"algorithm": algorithm, key: value})


@pytest.mark.parametrize(("limit", "alone"), [(math.inf, math.inf), (4.0, 58.82)])
def test_a_simulated_policy_allows_what_releases_tell_alone(limit, alone):
    """Of a hundred clients 65 are honest: alone a user has sqrt(65) times the mu."""
    config = Config.from_table({**MASKED, "noise-stddev": 2.0, "max-epsilon": limit})
    policy = config.policy(DataSpec((1, 28, 28), 10))
    assert (policy.min_honest, policy.max_colluding) == (65, 5)
    assert policy.max_epsilon_alone == pytest.approx(alone, rel=1e-3)
    if limit < math.inf:
        assert policy.max_mu_alone == pytest.approx(policy.max_mu * math.sqrt(65))


@pytest.mark.parametrize(("key", "default"), defaults().items())
def test_a_value_of_another_type_is_refused_by_name(key, default):
    _, algorithm = OF_OTHERS.get(key, (0, "gs-wgan"))
    wrong = {bool: [1], int: [1.5, "1"], float: ["1", math.nan], str: [1]}[type(default)]
    for value in wrong:
        with pytest.raises(ValueError, match=key):
            Config.from_table({"algorithm": algorithm, key: value})


@pytest.mark.parametrize(
    ("key", "said"),
    [("noise_stddev", "did you mean noise-stddev"), ("critic-step", "did you mean critic-steps"),
     ("generator-stepz", "did you mean generator-steps"), ("zzz", "known: dataset, ")],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest(key, said):
    with pytest.raises(ValueError, match=f"^{key}: no such setting; {said}"):
        Config.from_table({key: 1})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"epsilon": 1.0, "noise-stddev": 2.0}, "epsilon=1 and noise-stddev=2 cannot both be"),
        ({"noise-stddev": 1e-10}, "noise-stddev=1e-10 must be >"),
        ({"min-replies": 5, "cohort-size": 4}, "min-replies=5 must be <= cohort-size=4"),
        ({"dataset": "devices"}, "max-clients=0 must be the number of devices"),
        ({"dataset": "devices", "max-clients": 2}, "evaluation-samples=4000 must be 0"),
        ({"trust": "secure-aggregation", "sampling-method": "poisson"}, "must be fixed-size"),
        ({"trust": "secure-aggregation", "cohort-size": 3}, "honest-share=0.65 of cohort-size=3"),
        ({**MASKED, "honest-share": 0.96}, "0.96 and colluding-share=0.05 must be at most 1"),
        ({**MASKED, "checkpoint-every": 2}, "checkpoint-every=2 must be 1"),
        ({"algorithm-settings": "scale = 2.0"}, "must be empty under algorithm=gs-wgan"),
        ({"algorithm": "tests.plug_ins:Ratio", "algorithm-settings": "="}, "is not TOML"),
        ({"algorithm": "tests.plug_ins:Ratio", "algorithm-settings": "scala = 2.0"},
         "scala: no such setting; did you mean scale"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(table, said):
    with pytest.raises(ValueError, match=said):
        Config.from_table(table)


def test_a_size_that_the_images_do_not_have_is_refused():
    """Before a run begins: a client's failure would be answered with noise alone."""
    with pytest.raises(ValueError, match="dct-frequencies=29 must be <= 28"):
        calibrated(dct_frequencies=29)


def test_keys_of_another_algorithm_are_known_and_ignored():
    """Flower's run config holds the keys of every algorithm."""
    config = Config.from_table({"algorithm": "fedavg-gan", "dct-frequencies": 8})
    assert config == Config.from_table({"algorithm": "fedavg-gan"})
    assert "dct-frequencies" not in config.to_table()


def test_a_plug_in_algorithm_has_its_keys_in_one_setting():
    table = {"algorithm": "tests.plug_ins:Ratio", "algorithm-settings": "scale = 2.5"}
    config = Config.from_table(table)
    assert (config.own.scale, config.own.last_round) == (2.5, 1000)
    assert Config.from_table(config.to_table()) == config


TRUSTS = st.sampled_from(["local", "central", "secure-aggregation"])


@settings(max_examples=60, deadline=None)
@given(
    trust=TRUSTS,
    relation=st.sampled_from(list(NeighboringRelation)),
    epsilon=st.floats(0.05, 1e4),
    delta=st.sampled_from([1e-3, 1e-5, 1e-9]),
    rounds=st.integers(1, 3000),
    cohort=st.integers(4, 60),
    clipping=st.sampled_from(["sample", "message"]),
)
def test_all_rounds_together_compose_to_epsilon(
    trust, relation, epsilon, delta, rounds, cohort, clipping
):
    """And the last round is admitted, by the user's budget and by the owner's least noise."""
    config = calibrated(
        trust=trust, neighboring_relation=str(relation), epsilon=epsilon, delta=delta,
        rounds=rounds, cohort_size=cohort, clipping=clipping,
    )  # fmt: skip
    event = config.event(SPEC)
    reached = gaussian_epsilon(compose({event: rounds}, relation), delta)
    assert reached == pytest.approx(epsilon, rel=1e-9)
    charged = config.policy(SPEC).charge(event)
    assert charged == event
    config.shared.admit_spending({event: rounds - 1}, event)
    with pytest.raises(BudgetExhausted):
        config.shared.admit_spending({event: rounds}, event)


def test_noise_follows_by_hand():
    """Sum of squares: 2 sqrt(32 rows) / noise a round, 25 rounds, to mu of epsilon 10."""
    noise = calibrated(epsilon=10.0, rounds=25).shared.noise_stddev
    mu = 2 * math.sqrt(32) * 5 / noise
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(10, rel=1e-9)
    assert calibrated(rounds=25).shared.noise_stddev == noise, "the default target"
    assert DEFAULT_EPSILON == 10
    whole = calibrated(epsilon=10.0, rounds=25, clipping="message").shared.noise_stddev
    assert noise / whole == pytest.approx(math.sqrt(32))
    assert calibrated(noise_stddev=2.14).shared.noise_stddev == 2.14


@pytest.mark.parametrize(
    ("table", "participations"),
    [({"rounds": 100, "spare-rounds": 44}, 144), ({"rounds": 100, "max-participations": 9}, 9),
     ({"rounds": 4, "max-participations": 9}, 4)],
)  # fmt: skip
def test_noise_is_for_as_many_releases_as_a_user_can_make(table, participations):
    once = calibrated(rounds=1).shared.noise_stddev
    noise = calibrated(**table).shared.noise_stddev
    assert noise / once == pytest.approx(math.sqrt(participations))


def test_the_share_of_noise_is_that_of_the_promised_honest_clients():
    config = calibrated(
        trust="secure-aggregation", cohort_size=10, honest_share=0.7, noise_stddev=2.0
    )
    event = config.event(SPEC)
    assert (event.honest, event.noise_stddev) == (7, 2 / math.sqrt(7))
    relation = NeighboringRelation.ZERO_OUT
    assert event.mu(relation) == pytest.approx(math.sqrt(32) / 2)


@pytest.mark.parametrize(
    ("table", "noise"),
    [
        ({"trust": "local"}, 3 / math.sqrt(100)),
        ({"trust": "secure-aggregation", "honest_share": 0.64}, 3 * math.sqrt(100 / 64) / 100),
        ({"trust": "central"}, 3 / 100),
    ],
)
def test_the_noise_of_the_mean_decides_what_is_asked(table, noise):
    config = calibrated(critic="cramer", cohort_size=100, noise_stddev=3.0, **table)
    assert config.shared.mean_noise == pytest.approx(noise)
    expected = resolved(AdaptationSettings(), SPEC, noise)
    assert (config.own.points, config.own.fit_steps) == (expected.points, expected.fit_steps)
    assert config.release(SPEC).rows == 10 * config.own.points
    assert config.with_noise(SPEC) == config


def test_devices_are_told_what_follows_from_the_noise():
    """A device knows its own settings alone, and would refuse a release of another shape."""
    remote = {"dataset": "devices", "max_clients": 3, "evaluation_samples": 0}
    with pytest.raises(ValueError, match=r"on every device .*: feature-frequencies=4, .*points=1"):
        calibrated(critic="cramer", noise_stddev=3.0, **remote)
    told = calibrated(critic="cramer", noise_stddev=3.0, points=1, feature_frequencies=4,
                      feature_components=24, **remote)  # fmt: skip
    assert told.own.points == 1
    assert calibrated(noise_stddev=3.0, **remote).own.critic == "mlp"


def test_a_target_becomes_the_limit_of_every_user():
    assert calibrated(epsilon=3.0).shared.max_epsilon == 3
    assert calibrated(epsilon=3.0, max_epsilon=2.0).shared.max_epsilon == 2
    assert calibrated(noise_stddev=1.0).shared.max_epsilon == math.inf
    with pytest.raises(ValueError, match="allow a larger epsilon or fewer rounds"):
        calibrated(epsilon=1e-9, rounds=10**8)


def test_flower_s_run_config_in_pyproject_is_current():
    """``python -m fed_gswgan.config`` writes it."""
    text = (ROOT / "pyproject.toml").read_text()
    assert tomllib.loads(text)["tool"]["flwr"]["app"]["config"] == defaults()
    assert flower_table() + "\n[" in text

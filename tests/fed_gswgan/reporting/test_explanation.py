import math
from collections import Counter
from dataclasses import replace

import pytest

from fed_gswgan.config import Config
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation
from fed_gswgan.privacy.policy import Budget
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.reporting.explanation import (
    SpentByUser,
    aggregation_of,
    explanation,
    explanation_text,
    worst_user,
)
from fed_gswgan.wire.messages import ReleaseKey

# sqrt(16) x 2 / 4 = 2 for a reply of 16 rows, sqrt(1) x 2 / 4 = 0.5 for one of a single row.
PIXELS = 784
WHOLE = Event(rows=16, numbers=PIXELS, bounded="sample", clipping_bound=1.0, noise_stddev=4.0)
SINGLE = Event(rows=1, numbers=PIXELS, bounded="sample", clipping_bound=1.0, noise_stddev=4.0)
BUDGET = Budget(delta=1e-5)


@pytest.fixture
def clients(tmp_path):
    """Ann: 3 releases of 16 rows and one of a single row; Bob and Cleo: one of 16 rows."""
    for shard, users, events in (
        ("shard-0000", ("ann",), [WHOLE, WHOLE, WHOLE, SINGLE]),
        ("shard-0001", ("bob", "cleo"), [WHOLE]),
    ):
        Ledger.create(tmp_path / shard, "")
        with Ledger(tmp_path / shard) as ledger:
            for server_round, event in enumerate(events, start=1):
                key = ReleaseKey("experiment", server_round, "0" * 64)
                ledger.reserve({"client": users}, key, event, BUDGET)
    return tmp_path


def test_the_worst_user_is_the_one_who_spent_most(clients):
    spent = worst_user(clients, BUDGET)
    assert spent.user == "ann"
    assert spent.mu == pytest.approx(math.sqrt(3 * 2**2 + 0.5**2), rel=1e-12)
    assert spent.epsilon == gaussian_epsilon(spent.mu, 1e-5)


def test_every_step_is_there_and_follows_from_the_one_before(clients):
    found = explanation(worst_user(clients, BUDGET))
    whole, single = found["releases"]
    assert (whole["count"], whole["release_sensitivity"], whole["mu_of_one"]) == (3, 8.0, 2.0)
    assert (single["count"], single["release_sensitivity"], single["mu_of_one"]) == (1, 2.0, 0.5)
    assert found["mu"] ** 2 == pytest.approx(12.25, rel=1e-12)
    assert found["participations"] == 4
    assert found["coordinates_released"] == (3 * 16 + 1) * PIXELS
    check, mu, epsilon = found["check"], found["mu"], found["epsilon"]
    assert check["first_argument"] == pytest.approx(mu / 2 - epsilon / mu, rel=1e-12)
    assert math.exp(check["ln_first"]) - math.exp(check["ln_second"]) == pytest.approx(1e-5)
    assert check["delta_at_epsilon"] == pytest.approx(1e-5, rel=1e-9)
    # z with Phi(-z) = 1e-5 is 4.26489.
    assert check["estimate"] == pytest.approx(12.25 / 2 + 3.5 * 4.26489, rel=1e-5)
    assert epsilon < check["estimate"] < 1.1 * epsilon


def test_honest_shares_divide_mu_under_secure_aggregation(tmp_path):
    event = replace(WHOLE, trust="secure-aggregation", honest=4)
    releases = Counter({event: 9})
    spent = SpentByUser("ann", tmp_path, releases, NeighboringRelation.REPLACE_ONE, 1e-5)
    found = explanation(spent)
    # sqrt(16) x 2 / (4 x sqrt(4)) = 1 for one reply, sqrt(9) x 1 = 3 for all; 6 without the others.
    assert (found["releases"][0]["mu_of_one"], found["mu"]) == (1.0, pytest.approx(3.0))
    assert found["epsilon_alone"] == pytest.approx(gaussian_epsilon(6.0, 1e-5), rel=1e-12)
    assert found["noise_draws"] == 4 * found["coordinates_released"] == 4 * 9 * 16 * PIXELS
    text = explanation_text({**found, "run": "RUN", "seeded_noise": False, "aggregation": None})
    assert "H = 4 honest shares of the noise are in every sum" in text
    assert "mu = that / (noise x sqrt(H)):" in text
    assert "sqrt(16) x 2 C = 8 C;  mu of one reply = 8 / (4.0 x sqrt(4)) = 1" in text
    assert f"epsilon_alone = {found['epsilon_alone']:.6g}" in text
    assert "--trust secure-aggregation" in text
    assert "--honest 4" in text


def test_whom_a_sum_rests_on_is_said(tmp_path):
    """H = 65 of 100, c = 5, t = 53 > 105 / 2; a share is 4 / sqrt(65)."""
    event = replace(WHOLE, trust="secure-aggregation", noise_stddev=4 / 65**0.5, honest=65)
    spent = SpentByUser("ann", tmp_path, Counter({event: 1}), NeighboringRelation.REPLACE_ONE, 1e-5)
    table = {"trust": "secure-aggregation", "cohort-size": 100, "noise-stddev": 4.0}
    for form, last in (
        ("ideal", "35 may drop out\n   Ideal form: the simulation itself formed the sums"),
        (
            "protocol",
            "30 may drop out\n   Protocol: releases were masked; c = 5 may help the server",
        ),
    ):
        shared = Config.from_table({**table, "secure-aggregation": form}).shared
        found = {**explanation(spent), "run": "RUN", "seeded_noise": False}
        text = explanation_text({**found, "aggregation": aggregation_of(shared)})
        assert (
            "Cohort n = 100, of whom H = 65 (0.65 n) are honest and stay; a share of 0.496" in text
        )
        assert f"4 C, in the sum; {last}" in text
        assert ("t = 53 > (n + c) / 2 devices" in text) == (form == "protocol")
    assert aggregation_of(Config.from_table({}).shared) is None


def test_the_relation_of_the_run_halves_mu(clients):
    spent = worst_user(clients, Budget(neighboring_relation="zero-out"))
    assert spent.mu == pytest.approx(math.sqrt(12.25) / 2, rel=1e-12)


def test_a_folder_without_ledgers_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no ledger there"):
        worst_user(tmp_path, BUDGET)


def test_a_ledger_without_its_head_explains_nothing(clients):
    (clients / "shard-0000" / "ledger.head").unlink()
    with pytest.raises(LedgerUnavailable, match="shard-0000"):
        worst_user(clients, BUDGET)


def test_where_finite_arithmetic_adds_more_than_delta_no_guarantee_is_printed(tmp_path):
    releases = Counter({replace(WHOLE, noise_stddev=0.01): 9})
    spent = SpentByUser("ann", tmp_path, releases, NeighboringRelation.REPLACE_ONE, 1e-5)
    beside = {"run": "r", "seeded_noise": False, "aggregation": None}
    text = explanation_text(beside | explanation(spent))
    assert "adds more than delta=1e-05 to delta: an epsilon this large is no guarantee" in text
    assert "10^" not in text

import math

import pytest

from fed_gswgan.config import Config
from fed_gswgan.device.virtual_clients import ReservedBudgets
from fed_gswgan.privacy.events import NeighboringRelation, local_epsilon
from fed_gswgan.privacy.sanitizer import release_event
from fed_gswgan.privacy.user_ledgers import UserLedgers
from server.privacy_summary import privacy_summary

DELTA = 1e-3
CONFIG = Config.from_run_config({"delta": DELTA, "batch-size": 8})
EVENT = release_event(8, CONFIG.sanitizer)
RESERVED = ReservedBudgets(
    users=5000, participations_max=1, mu_max=2.0, epsilon_max=7.5, epsilon_median=6.5
)


@pytest.fixture
def asked_twice(tmp_path):
    """The count of a server that asked client a twice and b once."""
    UserLedgers.create(tmp_path / "asked.jsonl")
    ledgers = UserLedgers(tmp_path / "asked.jsonl", CONFIG.budget)
    ledgers.record(1, ["a", "b"], EVENT)
    ledgers.record(2, ["a"], EVENT)
    return ledgers


def summary_of(ledgers, clients, reserved, config=CONFIG):
    return privacy_summary(config, EVENT, 8 * 784, "one writer", clients, ledgers, reserved)


def test_where_the_clients_ledgers_cannot_be_seen_the_servers_count_stands_in(asked_twice):
    summary = summary_of(asked_twice, 14, None)
    expected = local_epsilon(EVENT, 2, NeighboringRelation.REPLACE_ONE, DELTA)
    assert summary["epsilon_max"] == summary["epsilon_server_bound"] == pytest.approx(expected)
    assert summary["participations_max"] == 2
    assert summary["epsilon_from"] == "the server's count"
    assert summary["epsilon_median"] is None


def test_what_finite_arithmetic_adds_is_far_below_a_hundredth_of_delta(asked_twice):
    summary = summary_of(asked_twice, 14, None)
    assert summary["delta_of_finite_arithmetic_log10"] < math.log10(DELTA / 100)
    assert "finite arithmetic adds 10^-" in summary["statement"][0]


def test_where_they_can_be_seen_they_count(asked_twice):
    summary = summary_of(asked_twice, 14, RESERVED)
    assert (summary["epsilon_max"], summary["epsilon_median"]) == (7.5, 6.5)
    assert (summary["participations_max"], summary["mu"]) == (1, 2.0)
    assert summary["epsilon_from"] == "the clients' ledgers"
    assert summary["epsilon_server_bound"] > 7.5


@pytest.mark.parametrize(
    ("clients", "reserved", "users"),
    [(14, None, None), (1000, None, 1000), (14, RESERVED, 5000)],
)
def test_delta_is_held_against_the_users_or_for_want_of_them_the_clients(
    asked_twice, clients, reserved, users
):
    text = "".join(summary_of(asked_twice, clients, reserved)["statement"])
    assert ("delta should be" in text) == (users is not None)
    assert users is None or f"below 1/{users}," in text


@pytest.mark.parametrize("source", ["secure", "seeded"])
def test_seeded_noise_is_said_in_the_statement(asked_twice, source):
    config = Config.from_run_config(CONFIG.to_run_config() | {"noise-source": source})
    summary = summary_of(asked_twice, 14, None, config)
    assert summary["seeded_noise"] == (source == "seeded")
    assert ("came from a seed" in "".join(summary["statement"])) == (source == "seeded")


def test_a_run_without_a_limit_says_so_in_json(asked_twice):
    assert summary_of(asked_twice, 14, None)["max_epsilon"] is None


def test_before_anybody_was_asked_nothing_was_spent(tmp_path):
    UserLedgers.create(tmp_path / "asked.jsonl")
    ledgers = UserLedgers(tmp_path / "asked.jsonl", CONFIG.budget)
    summary = summary_of(ledgers, 14, None)
    assert (summary["epsilon_max"], summary["participations_max"]) == (0, 0)

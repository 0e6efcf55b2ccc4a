import math

import pytest
from fed_gswgan.device.population import Population
from fed_gswgan.device.virtual_clients import policy_of_run

from fed_gswgan.config import Config
from fed_gswgan.data.partition import Partitions
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.reporting.explanation import explanation, worst_user

# sqrt(16) x 2 / 4 = 2 for a reply of 16 rows, sqrt(1) x 2 / 4 = 0.5 for one of a single row.
WHOLE = Event(rows=16, numbers=1, bounded="sample", clipping_bound=1.0, noise_stddev=4.0)
SINGLE = Event(rows=1, numbers=1, bounded="sample", clipping_bound=1.0, noise_stddev=4.0)
CONFIG = Config.from_table({"delta": 1e-5, "noise-stddev": 4.0})
PARTITIONS = Partitions((("ann",), ("bob", "cleo")))


@pytest.fixture
def clients(tmp_path):
    """Ann: 3 replies of 16 rows and one of a single row; Bob and Cleo: one of 16 rows."""
    folder = tmp_path / "clients"
    Population.create(folder, PARTITIONS)
    for number, events in enumerate(([WHOLE, WHOLE, WHOLE, SINGLE], [WHOLE])):
        path = Population(folder, PARTITIONS).open(number) / "ledger.jsonl"
        ledger = Ledger(path, PARTITIONS.users(number), policy_of_run(CONFIG))
        for server_round, event in enumerate(events, start=1):
            ledger.reserve(ReleaseKey("experiment", server_round, "0" * 64), event)
    return folder


def test_the_worst_user_is_the_one_who_spent_most(clients):
    spent = worst_user(clients, CONFIG)
    assert spent.user == "ann"
    assert spent.mu == pytest.approx(math.sqrt(3 * 2**2 + 0.5**2), rel=1e-12)
    assert spent.epsilon == gaussian_epsilon(spent.mu, 1e-5)


def test_every_step_is_there_and_follows_from_the_one_before(clients):
    found = explanation(worst_user(clients, CONFIG), dct_frequencies=0)
    whole, single = found["releases"]
    assert (whole["count"], whole["reply_sensitivity"], whole["mu_of_one"]) == (3, 8.0, 2.0)
    assert (single["count"], single["reply_sensitivity"], single["mu_of_one"]) == (1, 2.0, 0.5)
    assert found["mu"] ** 2 == pytest.approx(12.25, rel=1e-12)
    assert found["participations"] == 4
    assert found["coordinates_released"] == (3 * 16 + 1) * 784
    check, mu, epsilon = found["check"], found["mu"], found["epsilon"]
    assert check["first_argument"] == pytest.approx(mu / 2 - epsilon / mu, rel=1e-12)
    assert math.exp(check["ln_first"]) - math.exp(check["ln_second"]) == pytest.approx(1e-5)
    assert check["delta_at_epsilon"] == pytest.approx(1e-5, rel=1e-9)
    # z with Phi(-z) = 1e-5 is 4.26489.
    assert check["estimate"] == pytest.approx(12.25 / 2 + 3.5 * 4.26489, rel=1e-5)
    assert epsilon < check["estimate"] < 1.1 * epsilon


def test_in_a_basis_of_few_frequencies_fewer_coordinates_leave(clients):
    found = explanation(worst_user(clients, CONFIG), dct_frequencies=8)
    assert found["coordinates_released"] == (3 * 16 + 1) * 8 * 8


def test_the_relation_of_the_run_halves_mu(clients):
    zero_out = {**CONFIG.to_table(), "neighboring-relation": "zero-out"}
    spent = worst_user(clients, Config.from_table(zero_out))
    assert spent.mu == pytest.approx(math.sqrt(12.25) / 2, rel=1e-12)


def test_nothing_released_costs_nothing(tmp_path):
    Population.create(tmp_path / "clients", PARTITIONS)
    Population(tmp_path / "clients", PARTITIONS).open(1)
    found = explanation(worst_user(tmp_path / "clients", CONFIG), dct_frequencies=0)
    assert (found["epsilon"], found["mu"], found["releases"]) == (0, 0, [])
    assert found["check"] is found["delta_of_finite_arithmetic_log10"] is None


def test_a_folder_without_ledgers_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no ledger there"):
        worst_user(tmp_path, CONFIG)


def test_a_ledger_that_was_edited_explains_nothing(clients):
    path = clients / "client-00000" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"samples": 16', b'"samples": 17'))
    with pytest.raises(LedgerUnavailable, match="altered"):
        worst_user(clients, CONFIG)

from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.device.client_folder import FAILURES
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.device.update_guard import UpdateGuard
from fed_gswgan.device.virtual_clients import policy_of_run
from fed_gswgan.models.registry import build_critic, build_generator, to_state_vector
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.refusals import BudgetExhausted, MalformedInput, RequestExceedsPolicy
from fed_gswgan.wire.update_messages import UpdateRequest

CLASSES = 3
CONFIG = Config.from_run_config(
    {
        "algorithm": "fedavg-gan", "clipping": "message", "clipping-bound": 0.1,
        "noise-stddev": 2.0, "critic-width": 8, "critic-steps": 2, "batch-size": 4,
        "generator-width": 4, "critic-learning-rate": 1e-2,
    }
)  # fmt: skip
GENERATOR = to_state_vector(
    build_generator(CONFIG.generator, DataSpec(IMAGE_SHAPE, CLASSES), seed=1)
)
CRITIC = to_state_vector(build_critic(CONFIG.critic, DataSpec(IMAGE_SHAPE, CLASSES), seed=1))
REQUEST = UpdateRequest(
    experiment_id="e", server_round=1, generator_P=GENERATOR, critic_Q=CRITIC,
    clipping_bound=0.1, noise_stddev=2.0,
)  # fmt: skip


def shard():
    images = np.random.default_rng(0).random((6, 1, 28, 28), dtype=np.float32)
    return ClientDataset(("f0001",), images, np.arange(6) % CLASSES)


def no_data():
    raise AssertionError("data was read")


@pytest.fixture
def make_guard(tmp_path):
    Ledger.create(tmp_path / "ledger.jsonl", ("f0001",))

    def make(open_shard=shard, **limits):
        policy = replace(policy_of_run(CONFIG), **limits)
        client = PrivateClient("c", ("f0001",), open_shard, CLASSES, CONFIG, policy, tmp_path)
        return UpdateGuard(client)

    return make


def test_the_update_is_clipped_and_repeats_to_the_bit_at_no_charge(make_guard, tmp_path):
    update = make_guard().answer(REQUEST).update
    assert update.values_P.shape == CRITIC.shape
    assert 0 < np.linalg.norm(update.values_P.astype(float)) <= 0.1
    again = make_guard(open_shard=no_data).answer(REQUEST).update
    assert np.array_equal(again.values_P, update.values_P)
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2  # header and one charge


def test_an_owner_who_trusts_no_server_sends_nothing(make_guard):
    with pytest.raises(RequestExceedsPolicy, match="trusted-server is false"):
        make_guard(open_shard=no_data, trusted_server=False).answer(REQUEST)


def test_the_budget_counts_the_noise_that_the_server_promises(make_guard):
    one = gaussian_epsilon(2 / 2.0, CONFIG.budget.delta)
    guard = make_guard(max_epsilon=one * 1.001)
    guard.answer(REQUEST)
    with pytest.raises(BudgetExhausted, match="max-epsilon"):
        guard.answer(replace(REQUEST, server_round=2))


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"noise_stddev": 1.9}, RequestExceedsPolicy, "noise-stddev"),
        ({"clipping_bound": 0.2}, RequestExceedsPolicy, "clipping-bound"),
        ({"noise_stddev": float("nan")}, MalformedInput, "noise-stddev"),
        ({"server_round": 0}, MalformedInput, "server-round"),
        ({"server_round": True}, MalformedInput, "server-round"),
        ({"experiment_id": "e" * 65}, MalformedInput, "experiment-id"),
        ({"critic_Q": CRITIC[:-1]}, MalformedInput, "critic"),
        ({"critic_Q": CRITIC.astype(np.float64)}, MalformedInput, "critic"),
        ({"generator_P": GENERATOR * np.float32("inf")}, MalformedInput, "generator"),
        ({"generator_P": list(GENERATOR)}, MalformedInput, "generator-P"),
    ],
)
def test_what_asks_for_more_or_breaks_the_schema_is_refused_before_data(
    make_guard, tmp_path, fields, error, named
):
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(error, match=named):
        make_guard(open_shard=no_data).answer(replace(REQUEST, **fields))
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_a_failure_in_training_is_charged_noted_and_answered_with_zeros(make_guard, tmp_path):
    update = make_guard(open_shard=no_data).answer(REQUEST).update
    assert not update.values_P.any()
    assert "data was read" in (tmp_path / FAILURES).read_text()


def test_weights_that_overflow_in_training_give_zeros(make_guard):
    huge = np.full_like(CRITIC, 1e38)
    update = make_guard().answer(replace(REQUEST, critic_Q=huge)).update
    assert np.isfinite(update.values_P).all()
    assert np.linalg.norm(update.values_P.astype(float)) <= 0.1

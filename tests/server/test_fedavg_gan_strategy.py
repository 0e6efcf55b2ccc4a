"""A whole small run of the baseline, through the real client app."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from client.app import app as client_app
from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_critic, parameter_count
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.reporting.checkpoint import Checkpoint
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.message_types import UPDATE

SETTINGS = {
    "algorithm": "fedavg-gan",
    "clipping": "message",
    "clipping_bound": 0.1,
    "noise_stddev": 0.5,
    "critic_learning_rate": 5e-2,
    "neighboring_relation": "zero-out",
}


def tensors(folder):
    (path,) = (folder / "checkpoint").glob("*.safetensors")
    return path.read_bytes()


def test_a_run_moves_generator_and_critic_and_says_whom_it_trusts(small_run):
    folder = small_run(rounds=3, cohort_size=4, **SETTINGS)
    assert [r["stepped"] for r in read_rounds(folder)] == [True] * 3
    summary = json.loads((folder / "summary.json").read_text())
    privacy = summary["privacy"]
    assert (summary["algorithm"], privacy["trust_model"]) == ("fedavg-gan", "central")
    assert "Against the server itself there is no protection" in "\n".join(privacy["statement"])
    # Three sums, each with noise 0.5 C on an update of norm at most C, which zero-out takes away.
    expected = gaussian_epsilon(3**0.5 / 0.5, 1e-5)
    assert privacy["epsilon_max"] == pytest.approx(expected, rel=1e-9)


def test_the_devices_ledger_says_that_the_server_was_to_add_the_noise(small_run):
    folder = small_run(rounds=1, cohort_size=4, **SETTINGS)
    with LedgerFile(folder / "clients" / "client-00000" / "ledger.jsonl").locked() as file:
        (entry,) = file.entries
    assert entry["event"] == {
        "samples": 1, "clipping": "message", "clipping_bound": 0.1, "noise_stddev": 0.5,
        "noise_added_by": "server",
    }  # fmt: skip


def test_bytes_are_those_of_generator_and_critic_down_and_the_critic_up(small_run):
    folder = small_run(rounds=1, cohort_size=4, **SETTINGS)
    found = json.loads((folder / "summary.json").read_text())["bytes"]
    config = Config.from_run_config({"critic-width": 16})
    critic = 4 * parameter_count(build_critic(config.critic, DataSpec(IMAGE_SHAPE, 10), seed=0))
    assert critic < found["uplink_per_reply"] < critic + 1000
    assert found["downlink_per_request"] > 2 * critic


def test_one_seed_gives_one_generator_and_a_resumed_run_gives_it_too(small_run):
    whole = tensors(small_run("whole", rounds=4, **SETTINGS))
    assert tensors(small_run("again", rounds=4, **SETTINGS)) == whole
    small_run("parts", rounds=2, **SETTINGS)
    assert tensors(small_run("parts", rounds=4, resume=True, **SETTINGS)) == whole
    assert tensors(small_run("other", rounds=4, seed=1, **SETTINGS)) != whole


def test_the_noise_is_added_once_to_the_sum_and_divided_by_the_intended_cohort(small_run):
    """With no learning the mean update is nothing but the noise of the sum over the cohort."""
    quiet = {**SETTINGS, "critic_learning_rate": 1e-30, "noise_stddev": 3.0}
    folder = small_run(rounds=1, cohort_size=4, **quiet)
    (report,) = read_rounds(folder)
    config = Config.from_run_config({"critic-width": 16})
    size = parameter_count(build_critic(config.critic, DataSpec(IMAGE_SHAPE, 10), seed=0))
    expected = 3.0 * 0.1 / 4 * size**0.5
    assert report["combined_gradient_norm"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda update: update * 3e38,
        lambda update: np.full_like(update, np.nan),
        lambda update: update[:-1],
        lambda update: update.astype(np.float64),
        lambda update: update / np.linalg.norm(update) * np.float32(0.101),
    ],
    ids=["infinite", "not a number", "too short", "another type", "longer than the bound"],
)
def test_an_update_that_breaks_the_rules_is_dropped_and_counted(small_run, spoil):
    def app(message, context):
        reply = client_app(message, context)
        if message.metadata.message_type == UPDATE and context.node_config["partition-id"] == 0:
            update = reply.content["arrays"]["critic-update"].numpy()
            reply.content["arrays"] = ArrayRecord({"critic-update": Array(spoil(update))})
        return reply

    with np.errstate(over="ignore"):
        folder = small_run(rounds=1, cohort_size=4, app=app, **SETTINGS)
    (report,) = read_rounds(folder)
    assert (report["received"], report["malformed"]) == (3, 1)


def test_a_row_wise_clipping_is_refused_by_name():
    with pytest.raises(ValueError, match="clipping=sample must be message under algorithm"):
        Config.from_run_config({"algorithm": "fedavg-gan"})


def test_the_checkpoint_holds_the_critic(small_run):
    folder = small_run(rounds=1, **SETTINGS)
    assert Checkpoint(folder).progress().server_round == 1
    assert b"critic/" in tensors(folder)

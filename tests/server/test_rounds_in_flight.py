"""Rounds that are asked before older ones end: staleness, order, budgets, resuming."""

import json

import pytest
from flwr.app import Error, Message
from safetensors.torch import load_file

from client.app import app as client_app
from fed_gswgan.config import Config
from fed_gswgan.privacy.accountant import local_epsilon
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.reporting.checkpoint import Checkpoint
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.wire.record_codec import decode_request

EVENT = SanitizedGradientEvent(samples=8, clipping="sample", clipping_bound=1.0, noise_stddev=2.14)


def weights(folder):
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    return load_file(folder / "checkpoint" / index["tensors"])


def same(first, second):
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def staleness(folder):
    return [line["staleness"] for line in read_rounds(folder)]


def test_by_default_every_gradient_is_of_the_newest_generators_samples(small_run):
    assert staleness(small_run(rounds=4)) == [0, 0, 0, 0]


@pytest.mark.parametrize("in_flight", [2, 3])
def test_staleness_is_bounded_and_reported(small_run, in_flight):
    found = staleness(small_run(rounds=6, rounds_in_flight=in_flight))
    assert found == [min(number, in_flight - 1) for number in range(6)]


def test_a_round_without_a_step_makes_no_other_round_stale(small_run):
    def fails_in_round_one(message, context):
        if message.metadata.message_type == TRAIN and message.metadata.group_id == "1":
            return Message(Error(1003, "broken"), reply_to=message)
        return client_app(message, context)

    folder = small_run(rounds=4, rounds_in_flight=2, app=fails_in_round_one)
    assert [line["stepped"] for line in read_rounds(folder)] == [False, True, True, True]
    assert staleness(folder) == [0, 0, 1, 1]


def test_rounds_in_flight_at_once_show_samples_of_one_generator(small_run):
    """Their latents differ; the first of them is what a run of its own would send."""
    sent = {}

    def look(message, context):
        if message.metadata.message_type == TRAIN:
            sent[int(message.metadata.group_id)] = decode_request(message.content).samples_BCHW
        return client_app(message, context)

    small_run("alone", rounds=2, app=look)
    alone = dict(sent)
    small_run("ahead", rounds=2, rounds_in_flight=2, app=look)
    assert (alone[1] == sent[1]).all()
    assert not (alone[2] == sent[2]).all()  # made before the first step


def test_a_client_answers_the_rounds_in_their_order(small_run):
    asked = {}

    def look(message, context):
        if message.metadata.message_type == TRAIN:
            rounds = asked.setdefault(context.node_id, [])
            rounds.append(int(message.metadata.group_id))
        return client_app(message, context)

    small_run(cohort_size=4, rounds=6, rounds_in_flight=3, app=look)
    assert list(asked.values()) == [[1, 2, 3, 4, 5, 6]] * 4


def test_two_runs_with_rounds_in_flight_agree(small_run):
    first = small_run("a", rounds=5, rounds_in_flight=3)
    second = small_run("b", rounds=5, rounds_in_flight=3)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(small_run("c", rounds=5)))


class StopAfter:
    def __init__(self, questions):
        self.left = questions

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("release_use", ["step", "field"])
def test_an_interrupted_run_asks_the_rounds_in_flight_again_with_the_very_samples(
    small_run, release_use
):
    settings = {"rounds": 8, "rounds_in_flight": 3, "release_use": release_use}
    whole = small_run("whole", **settings)
    cut = small_run("cut", interrupted=StopAfter(11), **settings)
    stopped_at = Checkpoint(cut).progress().server_round
    assert 0 < stopped_at < 5
    assert sorted(Checkpoint(cut).in_flight()) == [stopped_at + 1, stopped_at + 2]

    small_run("cut", resume=True, **settings)

    assert same(weights(whole), weights(cut))
    assert not Checkpoint(cut).in_flight()
    # A request that was answered before the interrupt is answered again at no charge.
    for path in (whole / "clients").glob("*/ledger.jsonl"):
        resumed = cut / "clients" / path.parent.name / "ledger.jsonl"
        assert len(path.read_text().splitlines()) == len(resumed.read_text().splitlines())


def test_a_spent_budget_ends_the_run_with_no_round_left_in_flight(small_run):
    affordable = local_epsilon(EVENT, 3, NeighboringRelation.REPLACE_ONE, 1e-5)
    folder = small_run(cohort_size=4, rounds=10, rounds_in_flight=2, max_epsilon=affordable + 1e-6)

    assert [line["stepped"] for line in read_rounds(folder)] == [True] * 3
    with LedgerFile(folder / "asked.jsonl").locked() as ledger:
        assert [entry["round"] for entry in ledger.entries] == [1, 2, 3]


def test_a_poisson_cohort_of_nobody_does_not_stop_those_behind_it(small_run):
    folder = small_run(
        cohort_size=1, sampling_method="poisson", rounds=12, rounds_in_flight=3, max_clients=4
    )
    assert {line["asked"] for line in read_rounds(folder)} >= {0, 1}
    assert [line["server_round"] for line in read_rounds(folder)] == list(range(1, 13))


def test_averaged_critics_allow_no_second_round_in_flight():
    with pytest.raises(ValueError, match="rounds-in-flight=2 must be 1 under algorithm=fedavg-gan"):
        Config.from_run_config(
            {"algorithm": "fedavg-gan", "clipping": "message", "rounds-in-flight": 2}
        )

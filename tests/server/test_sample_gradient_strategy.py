"""The server's side of a round, against real clients in this process, some of them broken."""

import json

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord

from client.app import app as client_app
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent, local_epsilon
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.reporting.checkpoint import Checkpoint
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.message_types import TRAIN
from server.presence import RunStalled
from simulations.in_process_grid import InProcessGrid

EVENT = SanitizedGradientEvent(samples=8, clipping="sample", clipping_bound=1.0, noise_stddev=2.14)


class Broken:
    """Answers like the real app, but for one partition, whose train replies are spoilt."""

    def __init__(self, spoil, partition: int = 0) -> None:
        self.spoil, self.partition = spoil, partition

    def __call__(self, message, context):
        reply = client_app(message, context)
        mine = context.node_config["partition-id"] == self.partition
        return (
            self.spoil(reply, message) if mine and message.metadata.message_type == TRAIN else reply
        )


def with_gradient(reply: Message, gradient: np.ndarray) -> Message:
    reply.content["arrays"] = ArrayRecord({"sanitized-gradient": Array(gradient)})
    return reply


def with_round(reply: Message, server_round: int) -> Message:
    reply.content["config"]["server-round"] = server_round
    return reply


def with_metrics(reply: Message) -> Message:
    reply.content["metrics"] = MetricRecord({"num-examples": 12})
    return reply


MALFORMED = {
    "too few rows": lambda r, m: with_gradient(r, np.zeros((7, 1, 28, 28), np.float32)),
    "wrong dtype": lambda r, m: with_gradient(r, np.zeros((8, 1, 28, 28), np.float64)),
    "not finite": lambda r, m: with_gradient(r, np.full((8, 1, 28, 28), np.nan, np.float32)),
    "huge": lambda r, m: with_gradient(r, np.full((8, 1, 28, 28), 3e38, np.float32)),
    "wrong round": lambda r, m: with_round(r, 99),
    "a metric beside it": lambda r, m: with_metrics(r),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_reply_is_counted_and_dropped(small_run, kind):
    folder = small_run(cohort_size=4, rounds=2, app=Broken(MALFORMED[kind]))

    for line in read_rounds(folder):
        assert (line["asked"], line["received"], line["malformed"], line["failed"]) == (4, 3, 1, 0)
        assert line["stepped"]
    assert json.loads((folder / "summary.json").read_text())["replies"]["malformed"] == 2


def test_an_error_reply_is_counted_and_survived(small_run):
    fails = Broken(lambda reply, message: Message(Error(1003, "broken"), reply_to=message))
    folder = small_run(cohort_size=4, rounds=2, app=fails)

    assert [line["failed"] for line in read_rounds(folder)] == [1, 1]
    assert [line["received"] for line in read_rounds(folder)] == [3, 3]


class Unsteady(InProcessGrid):
    """In every round but the first look other nodes are gone: three of ten, in turn."""

    looks = 0

    def get_node_ids(self):
        self.looks += 1
        node_ids = list(super().get_node_ids())
        first = 3 * self.looks
        gone = {node_ids[(first + number) % len(node_ids)] for number in range(3)}
        return node_ids if self.looks == 1 else [n for n in node_ids if n not in gone]


def test_while_three_nodes_of_ten_are_gone_in_every_round_cohorts_are_full(small_run):
    folder = small_run(grid_type=Unsteady, max_clients=10, cohort_size=5, rounds=8)

    for line in read_rounds(folder):
        assert (line["asked"], line["received"], line["stepped"]) == (5, 5, True)
    with LedgerFile(folder / "asked.jsonl").locked() as ledger:
        assert all(len(entry["clients"]) == 5 for entry in ledger.entries)


def test_three_clients_of_ten_failing_in_every_round_stop_no_run(small_run):
    def fails(message, context):
        reply = client_app(message, context)
        if message.metadata.message_type != TRAIN:
            return reply
        number = context.node_config["partition-id"] + 3 * int(message.metadata.group_id)
        if number % 10 < 3:
            return Message(Error(1003, "broken"), reply_to=message)
        return reply

    folder = small_run(app=fails, max_clients=10, cohort_size=10, min_replies=7, rounds=8)

    for line in read_rounds(folder):
        assert (line["asked"], line["received"], line["failed"]) == (10, 7, 3)
        assert line["stepped"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["privacy"]["participations_max"] == 8  # who failed had been charged


class Straggling(InProcessGrid):
    """The replies of the first node come too late in every round."""

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        first = min(self.get_node_ids())
        late = [r for r in replies if r.metadata.src_node_id == first and r.metadata.group_id]
        return [reply for reply in replies if reply not in late]


def test_a_late_reply_is_charged_and_dropped_and_its_request_ends_with_its_round(small_run):
    lifetimes = []

    def look(message, context):
        if message.metadata.message_type == TRAIN:
            lifetimes.append(message.metadata.ttl)
        return client_app(message, context)

    settings = {"cohort_size": 4, "rounds": 2, "reply_timeout_seconds": 1.5}
    folder = small_run(app=look, grid_type=Straggling, **settings)

    for line in read_rounds(folder):
        assert (line["asked"], line["received"], line["missing"]) == (4, 3, 1)
        assert 1.5 <= line["waited_seconds"] <= line["round_seconds"]
    assert lifetimes == [1.5] * 8
    with LedgerFile(folder / "asked.jsonl").locked() as ledger:
        assert [len(entry["clients"]) for entry in ledger.entries] == [4, 4]


class Emptied(InProcessGrid):
    """After the first round's look all nodes but one are gone, and they stay away."""

    looks = 0

    def get_node_ids(self):
        self.looks += 1
        return list(super().get_node_ids())[: None if self.looks <= 2 else 1]


def test_while_too_few_are_there_nobody_is_asked_and_the_run_ends_saved(small_run, tmp_path):
    settings = {"cohort_size": 4, "min_replies": 2, "rounds": 5, "reply_timeout_seconds": 1.5}
    with pytest.raises(RunStalled, match="only 1 of 4 clients are there, min-replies=2"):
        small_run(grid_type=Emptied, **settings)

    folder = tmp_path / "run"
    assert Checkpoint(folder).progress().server_round == 1
    with LedgerFile(folder / "asked.jsonl").locked() as ledger:
        assert [entry["round"] for entry in ledger.entries] == [1]


def test_too_few_replies_make_no_step(small_run):
    fails = Broken(lambda reply, message: Message(Error(1003, "broken"), reply_to=message))
    folder = small_run(cohort_size=4, rounds=2, min_replies=4, app=fails)

    assert [line["stepped"] for line in read_rounds(folder)] == [False, False]
    assert [line["generator_gradient_norm"] for line in read_rounds(folder)] == [0.0, 0.0]


def broken_in(rounds):
    """Partition 0 fails in these rounds."""

    def spoil(reply, message):
        if int(message.metadata.group_id) not in rounds:
            return reply
        return Message(Error(1003, "broken"), reply_to=message)

    return Broken(spoil)


def test_a_run_whose_generator_stands_still_for_five_rounds_ends_and_stays_saved(
    small_run, tmp_path
):
    settings = {"cohort_size": 4, "min_replies": 4, "rounds": 20, "checkpoint_every": 100}
    with pytest.raises(RunStalled, match="last 5 rounds: of 4 clients 3 answered, min-replies=4"):
        small_run(app=broken_in(range(3, 99)), **settings)

    folder = tmp_path / "run"
    assert [line["stepped"] for line in read_rounds(folder)] == [True] * 2 + [False] * 5
    assert Checkpoint(folder).progress().server_round == 7
    assert not (folder / "summary.json").exists()

    small_run(resume=True, **(settings | {"rounds": 9}))  # whoever failed is well again

    assert [line["stepped"] for line in read_rounds(folder)][7:] == [True, True]


def test_a_step_between_them_makes_patience_start_again(small_run):
    broken = broken_in({1, 2, 3, 4, 6, 7, 8, 9})
    folder = small_run(cohort_size=4, min_replies=4, rounds=10, app=broken)

    assert [line["server_round"] for line in read_rounds(folder) if line["stepped"]] == [5, 10]


def test_rounds_that_asked_nobody_are_no_reason_to_lose_patience(small_run, monkeypatch):
    monkeypatch.setattr("server.budgeted_cohort.select_cohort", lambda *arguments: [])
    folder = small_run(rounds=8)

    assert [(line["asked"], line["stepped"]) for line in read_rounds(folder)] == [(0, False)] * 8


def test_the_cohort_is_of_the_size_that_was_asked_for(small_run):
    folder = small_run(cohort_size=2, rounds=5)

    assert [line["asked"] for line in read_rounds(folder)] == [2] * 5


def test_a_poisson_cohort_varies_and_may_be_empty(small_run):
    folder = small_run(cohort_size=1, sampling_method="poisson", rounds=12)

    asked = [line["asked"] for line in read_rounds(folder)]
    assert len(set(asked)) > 1
    assert len(asked) == 12
    for line in read_rounds(folder):
        assert line["stepped"] == (line["received"] > 0)


def test_every_release_is_on_the_servers_own_ledger_before_it_is_answered(small_run, tmp_path):
    on_disk = []

    def look(reply, message):
        with LedgerFile(tmp_path / "run" / "asked.jsonl").locked() as ledger:
            on_disk.append((int(message.metadata.group_id), [e["round"] for e in ledger.entries]))
        return reply

    small_run(cohort_size=4, rounds=3, app=Broken(look))

    assert on_disk == [(1, [1]), (2, [1, 2]), (3, [1, 2, 3])]


def test_a_spent_budget_ends_the_run_before_anybody_is_asked_again(small_run):
    affordable = local_epsilon(EVENT, 3, NeighboringRelation.REPLACE_ONE, 1e-5)
    folder = small_run(cohort_size=4, rounds=10, max_epsilon=affordable + 1e-6)

    assert len(read_rounds(folder)) == 3
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rounds"] == 3
    assert summary["privacy"]["participations_max"] == 3
    assert summary["privacy"]["epsilon_max"] == pytest.approx(affordable, rel=1e-9)
    assert summary["replies"]["failed"] == 0


def test_half_the_bytes_go_down_and_up_in_float16(small_run):
    full = json.loads((small_run("full", rounds=2) / "summary.json").read_text())["bytes"]
    half = json.loads(
        (
            small_run("half", rounds=2, downlink_codec="float16", uplink_codec="float16")
            / "summary.json"
        ).read_text()
    )["bytes"]

    pixels = 8 * 784
    assert full["uplink_per_reply"] - half["uplink_per_reply"] == 2 * pixels
    assert full["downlink_per_request"] - half["downlink_per_request"] == 2 * pixels


def test_eight_bits_each_way_still_train(small_run):
    folder = small_run(rounds=3, downlink_codec="uint8", uplink_codec="uint8", critic_batches=2)

    assert [line["received"] for line in read_rounds(folder)] == [3, 3, 3]


def test_frequencies_in_one_bit_each_still_train_at_the_same_privacy(small_run):
    summaries = {}
    for name, settings in (
        ("pixels", {}),
        (
            "bits",
            {"dct_frequencies": 8, "uplink_codec": "uint1", "downlink_codec": "uint4-deflate"},
        ),
    ):
        folder = small_run(name, rounds=3, **settings)
        assert [line["stepped"] for line in read_rounds(folder)] == [True] * 3
        summaries[name] = json.loads((folder / "summary.json").read_text())
    pixels, bits = summaries["pixels"], summaries["bits"]
    assert bits["privacy"]["epsilon_max"] == pixels["privacy"]["epsilon_max"]
    # 8 rows of 784 numbers of 4 bytes, or of 64 bits; the rest of a reply is the same but digits.
    saved = pixels["bytes"]["uplink_per_reply"] - bits["bytes"]["uplink_per_reply"]
    assert saved == pytest.approx(8 * 784 * 4 - 8 * 8, abs=8)


def test_what_the_server_makes_of_a_release_changes_neither_privacy_nor_bytes(small_run):
    step, field = (
        json.loads((small_run(use, rounds=3, release_use=use) / "summary.json").read_text())
        for use in ("step", "field")
    )
    assert field["privacy"] == step["privacy"]
    # Compressed by nothing, the samples are as long whatever they show.
    for name in ("uplink_total", "downlink_total"):
        assert field["bytes"][name] == pytest.approx(step["bytes"][name], abs=16)


def test_several_writers_of_a_client_are_all_charged(small_run):
    folder = small_run(max_clients=3, writers_per_client=4, cohort_size=3, rounds=2)

    for path in (folder / "clients").glob("*/ledger.jsonl"):
        entries = [json.loads(line)["entry"] for line in path.read_text().splitlines()]
        users = entries[0]["users"]
        assert len(users) > 1
        assert [e["user"] for e in entries[1:]] == users * 2


@pytest.mark.parametrize("generator", ["dcgan", "resnet"])
def test_the_papers_networks_run_whole(small_run, generator):
    folder = small_run(
        rounds=2, generator=generator, generator_width=4, critic="conv", critic_width=4
    )

    assert [line["stepped"] for line in read_rounds(folder)] == [True, True]


def test_a_run_is_never_written_over(small_run):
    folder = small_run(rounds=1)
    before = (folder / "rounds.jsonl").read_bytes()

    with pytest.raises(FileExistsError, match="holds a run already"):
        small_run(rounds=1)

    assert (folder / "rounds.jsonl").read_bytes() == before


@pytest.mark.parametrize("release_use", ["step", "field"])
def test_the_generators_learning_rate_falls_to_its_share_at_the_last_round(small_run, release_use):
    def weights(name, rounds, end_factor):
        settings = {"generator_learning_rate_end_factor": end_factor, "ema_halflife_steps": 0.0}
        folder = small_run(name, rounds=rounds, release_use=release_use, **settings)
        found = Checkpoint(folder).ema_weights()
        return torch.cat([found[name].flatten() for name in sorted(found)])

    # Half of two rounds is the first of them; a last one at a share of 0 moves nothing.
    first_alone = weights("first", 1, 1.0)
    assert torch.equal(weights("stopped", 2, 0.0), first_alone)
    assert not torch.equal(weights("whole", 2, 1.0), first_alone)

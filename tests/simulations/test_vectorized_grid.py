"""A cohort's messages answered together: each is answered as the app would have."""

import json

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors.torch import load_file

from client import virtual_device
from fed_gswgan.privacy.refusals import LedgerUnavailable, MalformedInput
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.training import cohort_training, critic_task
from fed_gswgan.wire.message_types import CLIENT_FAILED, TRAIN
from simulations import vectorized_grid
from simulations.in_process_grid import InProcessGrid
from simulations.vectorized_grid import VectorizedGrid

SECRET = "the writer has 17 images of a 3"


class Noting(VectorizedGrid):
    """Keeps what it was asked, how many at once, and what it replied."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked, self.replies, self.together = [], [], []
        type(self).made = self

    def _answer_together(self, cohort):
        super()._answer_together(cohort)
        if cohort:
            self.together.append(len(cohort))
        self.asked += cohort.values()
        self.replies += [self._replies[m.metadata.message_id] for m in cohort.values()]

    def nodes(self):
        return [message.metadata.dst_node_id for message in self.asked]


@pytest.fixture
def noting():
    """Return a new type of grid; its ``made`` is the last of them."""
    return type("NotingGrid", (Noting,), {})


def weights(folder):
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    return load_file(folder / "checkpoint" / index["tensors"])


def assert_same_generator(one, other):
    found, expected = weights(one), weights(other)
    assert found.keys() == expected.keys()
    for key in found:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5, msg=key)


def charges(folder):
    paths = sorted((folder / "clients").glob("*/ledger.jsonl"))
    return {path.parent.name: len(path.read_text().splitlines()) - 1 for path in paths}


@pytest.mark.parametrize("settings", [{}, {"critic": "conv", "critic_width": 4}])
def test_a_run_is_that_of_the_app_and_a_cohort_is_trained_at_once(small_run, noting, settings):
    together = small_run("together", grid_type=noting, rounds=3, **settings)
    alone = small_run("alone", rounds=3, **settings)

    assert_same_generator(together, alone)
    assert charges(together) == charges(alone)
    assert noting.made.together == [3, 3, 3]


def test_no_client_is_trained_alone(small_run, monkeypatch):
    monkeypatch.setattr(critic_task, "carry_out", None)
    (line,) = read_rounds(small_run(rounds=1, grid_type=VectorizedGrid))
    assert (line["received"], line["stepped"]) == (3, True)


def test_a_run_goes_on_from_either_runtime(small_run):
    small_run("a", rounds=2)
    first = small_run("a", rounds=4, resume=True, grid_type=VectorizedGrid)
    small_run("b", rounds=2, grid_type=VectorizedGrid)
    second = small_run("b", rounds=4, resume=True)
    whole = small_run("whole", rounds=4)

    assert_same_generator(first, whole)
    assert_same_generator(second, whole)
    assert charges(first) == charges(second) == charges(whole)


def test_the_baseline_is_answered_by_the_app(small_run, noting):
    settings = {"algorithm": "fedavg-gan", "rounds": 2, "clipping": "message"}
    together = small_run("together", grid_type=noting, **settings)
    alone = small_run("alone", **settings)

    assert noting.made.together == []
    assert all(map(torch.equal, weights(together).values(), weights(alone).values()))


def test_a_client_that_fails_to_train_looks_like_any_other_and_fails_alone(small_run, monkeypatch):
    load = virtual_device.load_partition

    loaded = []

    def fail_second(source, writers):
        loaded.append(writers)
        if len(loaded) == 2:
            raise ZeroDivisionError(SECRET)
        return load(source, writers)

    def run(name, grid_type):
        loaded.clear()
        virtual_device._opened.cache_clear()
        return small_run(name, rounds=1, grid_type=grid_type)

    monkeypatch.setattr(virtual_device, "load_partition", fail_second)
    together, alone = run("together", VectorizedGrid), run("alone", InProcessGrid)

    assert_same_generator(together, alone)
    (log,) = (together / "clients").glob("*/failures.log")
    assert SECRET in log.read_text()
    (line,) = read_rounds(together)
    assert (line["received"], line["failed"], line["stepped"]) == (3, 0, True)
    assert sum(charges(together).values()) == 3


def test_a_joint_failure_is_nobodys(small_run, monkeypatch, caplog):
    def out_of_memory(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cohort_training, "StackedCritics", out_of_memory)
    together = small_run("together", rounds=2, grid_type=VectorizedGrid)
    alone = small_run("alone", rounds=2)

    assert all(map(torch.equal, weights(together).values(), weights(alone).values()))
    assert charges(together) == charges(alone)
    assert not list(together.rglob("failures.log"))
    assert "one by one" in caplog.text


def test_a_refusal_is_the_refused_clients_alone_and_by_name(small_run, noting):
    folder = small_run("run", rounds=1, cohort_size=4)
    (folder / "clients" / "client-00002" / "ledger.jsonl").unlink()
    small_run("run", rounds=2, cohort_size=4, resume=True, grid_type=noting)

    errors = [reply.error.code for reply in noting.made.replies if reply.has_error()]
    assert errors == [LedgerUnavailable.code]
    assert read_rounds(folder)[1]["received"] == 3
    assert charges(folder) == {"client-00000": 2, "client-00001": 2, "client-00003": 2}


def test_a_failure_before_the_reservation_tells_nothing(small_run, noting, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("fed_gswgan.device.guard.check_request", fail)
    folder = small_run(rounds=1, grid_type=noting)

    said = {(reply.error.code, reply.error.reason) for reply in noting.made.replies}
    assert said == {(CLIENT_FAILED, "client failed; see its own log")}
    assert (folder / "clients" / "failures.log").read_text().count(SECRET) == 3
    assert sum(charges(folder).values()) == 0


def test_a_reply_holds_the_gradient_and_nothing_else(small_run, noting, monkeypatch):
    small_run("a", rounds=1, grid_type=noting)
    for reply in noting.made.replies:
        assert set(reply.content) == {"arrays", "config"}
        assert set(reply.content["arrays"]) == {"sanitized-gradient"}
        assert dict(reply.content["config"]) == {"server-round": 1}

    def with_a_count(reply, codec):
        records = encode(reply, codec)
        records["config"]["images"] = 17
        return records

    encode = virtual_device.encode_reply
    monkeypatch.setattr(virtual_device, "encode_reply", with_a_count)
    small_run("b", rounds=1, grid_type=noting)
    assert {reply.error.code for reply in noting.made.replies} == {CLIENT_FAILED}


class TestMessages:
    """Pushed to a grid whose clients have answered one round before."""

    @pytest.fixture
    def grid(self, small_run, noting):
        """Return a grid of four clients, and the folder that theirs are in, as ``folder``."""
        folder = small_run(rounds=1, cohort_size=4, grid_type=noting)
        grid = noting.made
        grid.folder, grid.first = folder, dict(zip(grid.nodes(), grid.replies, strict=True))
        grid.together.clear()
        return grid

    def ask(self, grid, *messages):
        replies = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(messages)}
        return [replies[message.metadata.message_id] for message in messages]

    def again(self, grid, node_id, **changes):
        """Return the message of the round before, or one that asks for another round."""
        content = grid.asked[0].content.copy()
        config = ConfigRecord({**content["config"], **changes})
        return Message(RecordDict({**content, "config": config}), node_id, TRAIN)

    def gradient(self, reply):
        return reply.content["arrays"]["sanitized-gradient"].numpy().tobytes()

    def test_what_was_answered_is_answered_again_at_no_charge(self, grid):
        before = charges(grid.folder)
        nodes = list(grid.get_node_ids())
        replies = self.ask(grid, *(self.again(grid, node_id) for node_id in nodes))

        for node_id, reply in zip(nodes, replies, strict=True):
            assert self.gradient(reply) == self.gradient(grid.first[node_id])
        assert charges(grid.folder) == before

    def test_a_client_asked_twice_answers_twice_in_order(self, grid):
        first, second = grid.get_node_ids()[:2]
        rounds = [2, 3, 3]
        asked = [(first, 2), (first, 3), (second, 3)]
        messages = [self.again(grid, n, **{"server-round": r}) for n, r in asked]
        replies = self.ask(grid, *messages)

        assert [reply.content["config"]["server-round"] for reply in replies] == rounds
        assert grid.together == [1, 2]
        assert [charges(grid.folder)[f"client-0000{n}"] for n in (0, 1)] == [3, 2]

    def test_a_malformed_request_is_refused_by_name_and_the_others_are_answered(self, grid):
        nodes = list(grid.get_node_ids())
        messages = [self.again(grid, node_id, **{"server-round": 2}) for node_id in nodes]
        arrays = dict(messages[1].content["arrays"])
        messages[1].content["arrays"] = ArrayRecord({"samples": arrays["samples"]})
        replies = self.ask(grid, *messages)

        assert [reply.has_error() for reply in replies] == [False, True, False, False]
        assert replies[1].error.code == MalformedInput.code
        assert "labels" in replies[1].error.reason

    def test_nobody_and_other_kinds_of_message_are_left_to_the_app(self, grid):
        node_id = grid.get_node_ids()[3]
        config = RecordDict({"config": ConfigRecord({"x": 1})})
        messages = [
            self.again(grid, 99), Message(config, node_id, "query.register"),
            self.again(grid, node_id),
        ]  # fmt: skip
        nobody, registered, answered = self.ask(grid, *messages)

        assert nobody.error.reason == "no such node"
        assert registered.content["config"]["client-id"] == "client-00003"
        assert self.gradient(answered) == self.gradient(grid.first[node_id])

    def test_no_more_clients_than_memory_is_meant_for_are_trained_at_once(self, grid, monkeypatch):
        monkeypatch.setattr(vectorized_grid, "AT_ONCE", 3)
        nodes = list(grid.get_node_ids())
        replies = self.ask(grid, *(self.again(grid, n, **{"server-round": 2}) for n in nodes))

        assert grid.together == [3, 1]
        assert not any(reply.has_error() for reply in replies)

"""Hostile train requests as Flower messages, through the app that a device really runs."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto

from client import virtual_device
from client.app import app as client_app
from fed_gswgan.config import Config
from fed_gswgan.data.partition import load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.population import Population
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from fed_gswgan.privacy.refusals import BudgetExhausted, MalformedInput, RequestExceedsPolicy
from fed_gswgan.wire.message_types import TRAIN, UPDATE
from simulations.in_process_grid import InProcessGrid
from tests.conftest import SMALL

CONFIG = Config.from_run_config(SMALL | {"noise-stddev": 32.0, "max-epsilon": 0.8})


class Wire:
    """One node's ClientApp behind Flower's own serialization."""

    def __init__(self, folder):
        self.ledger = folder / "client-00000" / "ledger.jsonl"
        self._grid = InProcessGrid(client_app, 1, CONFIG.to_run_config())
        self._node = next(iter(self._grid.get_node_ids()))

    def ask(self, arrays, config):
        records = {
            "arrays": ArrayRecord({name: as_array(value) for name, value in arrays.items()}),
            "config": ConfigRecord(config),
        }
        return self.ask_records(records)

    def ask_records(self, records, kind=TRAIN):
        message = Message(RecordDict(records), self._node, kind)
        message = message_from_proto(message_to_proto(message))
        (reply,) = self._grid.send_and_receive([message])
        return reply

    def charges(self):
        if not self.ledger.exists():  # made when the first message is answered
            return 0
        return len(self.ledger.read_text().splitlines()) - 1


def as_array(value):
    return value if isinstance(value, Array) else Array(value)


def images(*leading, value=0.5):
    return np.full((*leading, 1, 28, 28), value, np.float32)


def labels(*shape, value=0):
    return np.full(shape, value, np.uint8)


def arrays_of(**changed):
    honest = {"samples": images(8), "labels": labels(8)}
    return honest | {name.replace("_", "-"): value for name, value in changed.items()}


def config_of(**changed):
    honest = {
        "experiment-id": "experiment", "server-round": 1, "checkpoint-round": 0,
        "clipping": "sample", "clipping-bound": 1.0, "noise-stddev": 32.0,
        "dct-frequencies": 0, "downlink-codec": "float32", "uplink-codec": "float32",
    }  # fmt: skip
    return honest | {name.replace("_", "-"): value for name, value in changed.items()}


HOSTILE = {
    "round 0": (MalformedInput, {}, {"server_round": 0}),
    "last round that Flower can write": (MalformedInput, {}, {"server_round": 2**63 - 1}),
    "round that is a fraction": (MalformedInput, {}, {"server_round": 1.0}),
    "round that is yes": (MalformedInput, {}, {"server_round": True}),
    "list of rounds": (MalformedInput, {}, {"server_round": [1, 2]}),
    "checkpoint to come": (MalformedInput, {}, {"checkpoint_round": 1}),
    "long name": (MalformedInput, {}, {"experiment_id": "x" * 10**6}),
    "a seed for the noise": (MalformedInput, {}, {"seed": 1}),
    "a budget of the server's": (MalformedInput, {}, {"max_epsilon": 1e9}),
    "a further array": (MalformedInput, {"weights": images(1)}, {}),
    "no rows": (MalformedInput, {"samples": images(0), "labels": labels(0)}, {}),
    "a row more": (RequestExceedsPolicy, {"samples": images(9), "labels": labels(9)}, {}),
    "critic batches": (
        RequestExceedsPolicy, {"critic_samples": images(1, 8), "critic_labels": labels(1, 8)}, {}
    ),
    "critic samples alone": (MalformedInput, {"critic_samples": images(1, 8)}, {}),
    "NaN": (MalformedInput, {"samples": images(8, value=np.nan)}, {}),
    "infinity": (MalformedInput, {"samples": images(8, value=np.inf)}, {}),
    "huge pixels": (MalformedInput, {"samples": images(8, value=1e38)}, {}),
    "doubles": (MalformedInput, {"samples": images(8).astype(np.float64)}, {}),
    "label of no class": (MalformedInput, {"labels": labels(8, value=255)}, {}),
    "signed labels": (MalformedInput, {"labels": labels(8).astype(np.int8)}, {}),
    "bytes that are no array": (
        MalformedInput, {"samples": Array("float32", (8, 1, 28, 28), "numpy.ndarray", b"\x93x")}, {}
    ),
    "less noise": (RequestExceedsPolicy, {}, {"noise_stddev": 31.9}),
    "no noise": (MalformedInput, {}, {"noise_stddev": 0.0}),
    "noise that is no number": (MalformedInput, {}, {"noise_stddev": float("nan")}),
    "larger bound": (RequestExceedsPolicy, {}, {"clipping_bound": 1.01}),
    "no bound": (MalformedInput, {}, {"clipping_bound": float("inf")}),
    "samples in another codec than said": (MalformedInput, {}, {"downlink_codec": "uint8"}),
    "samples said to be compressed": (MalformedInput, {}, {"downlink_codec": "uint8-deflate"}),
    "codec that nobody knows": (MalformedInput, {}, {"uplink_codec": "pickle"}),
    "no codec": (MalformedInput, {}, {"downlink_codec": ""}),
    "too many frequencies": (MalformedInput, {}, {"dct_frequencies": 29}),
    "no clipping": (MalformedInput, {}, {"clipping": "none"}),
}  # fmt: skip


@pytest.fixture
def opened(monkeypatch):
    """Count, in a list, how often a device opened its data."""
    times = []

    def counted(source, partition):
        times.append(partition)
        return load_partition(source, partition)

    monkeypatch.setattr(virtual_device, "load_partition", counted)
    return times


@pytest.fixture
def wire(tmp_path, monkeypatch):
    monkeypatch.setenv(SIMULATION_FOLDER, str(tmp_path / "clients"))
    Population.create(tmp_path / "clients", partitions_of(open_source(CONFIG.data), CONFIG.data))
    return Wire(tmp_path / "clients")


def assert_refused(reply, kind):
    assert reply.has_error()
    assert not reply.has_content()
    assert reply.error.code == kind.code
    assert reply.error.reason.startswith(f"{kind('').name}: ")
    assert len(reply.error.reason) < 400
    assert message_from_proto(message_to_proto(reply)).error.code == kind.code


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_answered_by_an_error_with_the_code_of_its_refusal(wire, opened, name):
    kind, arrays, config = HOSTILE[name]
    assert_refused(wire.ask(arrays_of(**arrays), config_of(**config)), kind)
    assert wire.charges() == 0
    assert opened == []


@pytest.mark.parametrize("missing", [*arrays_of(), *config_of()])
def test_a_message_without_one_of_its_fields_is_malformed(wire, opened, missing):
    arrays, config = arrays_of(), config_of()
    arrays.pop(missing, None), config.pop(missing, None)
    assert_refused(wire.ask(arrays, config), MalformedInput)
    assert opened == []


@pytest.mark.parametrize("records", [{}, {"config": ConfigRecord(config_of())}])
def test_a_message_without_its_records_is_malformed(wire, opened, records):
    assert_refused(wire.ask_records(records), MalformedInput)
    assert opened == []


def test_an_update_without_noise_is_not_to_be_had_from_a_device_that_does_not_trust(wire, opened):
    records = {
        "arrays": ArrayRecord({name: Array(np.zeros(4, "f4")) for name in ("generator", "critic")}),
        "config": ConfigRecord(
            {
                "experiment-id": "experiment",
                "server-round": 1,
                "clipping-bound": 1.0,
                "noise-stddev": 32.0,
            }
        ),
    }
    reply = wire.ask_records(records, UPDATE)
    assert_refused(reply, RequestExceedsPolicy)
    assert "trusted-server is false" in reply.error.reason
    assert (wire.charges(), opened) == (0, [])


def test_an_exhausted_budget_is_told_as_one_and_a_replay_is_still_free(wire, opened):
    replies = [wire.ask(arrays_of(), config_of(server_round=number)) for number in range(1, 9)]
    answered = [reply for reply in replies if not reply.has_error()]
    assert 0 < len(answered) == wire.charges() < 8
    for reply in replies[len(answered) :]:
        assert_refused(reply, BudgetExhausted)
    assert "max-epsilon=0.8" in replies[-1].error.reason

    again = wire.ask(arrays_of(), config_of(server_round=len(answered)))
    gradients = [
        reply.content["arrays"]["sanitized-gradient"].numpy() for reply in (again, answered[-1])
    ]
    assert gradients[0].tobytes() == gradients[1].tobytes()
    assert wire.charges() == len(answered)
    assert len(opened) == 1

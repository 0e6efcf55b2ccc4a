"""Which node answers for which client, while nodes vanish, return, join and dispute an id."""

import hashlib
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fed_gswgan.device.shards import ClientIds, shard_name, shard_of
from fed_gswgan.secure_aggregation.keys import Identity, client_id_of
from fed_gswgan.wire.message_types import CHALLENGE, NAME, PROOF, RECORD, REGISTER
from server import client_registry
from server.client_registry import ClientRegistry, RunStalled
from simulations.in_process import InProcessGrid

FAILS = Error(1013, "no guard\nanswers")


def keys_of(*owners):
    """Return keys whose client ids have the order of their owners."""
    made = [Identity(hashlib.sha256(name.encode()).digest()) for name in owners]
    ordered = sorted(made, key=lambda identity: client_id_of(identity.public))
    return dict(zip(sorted(owners), ordered, strict=True))


IDENTITIES = keys_of("a", "b", "c", "other", "twin")
IDS = {name: client_id_of(identity.public) for name, identity in IDENTITIES.items()}
OWNERS = {client_id: name for name, client_id in IDS.items()}


def proof_of(name):
    return lambda challenge: {PROOF: IDENTITIES[name].prove(challenge)}


class Nodes(InProcessGrid):
    """Nodes that the test lets in and out, each with its answer to a challenge.

    It is a device's owner, a shard's name, an error, or a function of the challenge.
    """

    def __init__(self, names):
        super().__init__(0, {})
        self.names, self.online, self.asked, self.looks = dict(names), list(names), [], 0

    def get_node_ids(self):
        self.looks += 1
        return list(self.online)

    def _submit(self, node_id, messages):
        (message,) = messages
        assert message.metadata.message_type == REGISTER
        self.asked.append(node_id)
        name = self.names[node_id]
        challenge = message.content[RECORD][CHALLENGE]
        if isinstance(name, str) and name in IDENTITIES:
            name = proof_of(name)
        if callable(name):
            content = RecordDict({RECORD: ConfigRecord(name(challenge))})
        elif isinstance(name, Error):
            content = name
        else:
            content = RecordDict({RECORD: ConfigRecord({NAME: name})})
        answered = Future()
        answered.set_result([Message(content, reply_to=message)])
        return answered


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client_registry, "POLL_SECONDS", 0.001)


def registered(names, expected=None, timeout_seconds=5.0, **options):
    grid = Nodes(names)
    registry = ClientRegistry(grid, options.pop("simulated", None), **options)
    registry.register(len(names) if expected is None else expected, timeout_seconds)
    return grid, registry


def absent(registry, wanted=1):
    """Look twice: a new node is asked at one look, and its answer taken in at the next."""
    registry.absent(wanted, 5.0)
    return {OWNERS.get(client, client) for client in registry.absent(wanted, 5.0)}


def owners_of(registry):
    return [OWNERS[client] for client in registry]


def nodes_of(registry):
    return {OWNERS[client]: registry.node_id(client) for client in registry}


def test_clients_are_sorted_by_id_and_reached_at_their_nodes():
    grid, registry = registered({11: "c", 12: "a", 13: "b"})
    assert owners_of(registry) == ["a", "b", "c"]
    assert (len(registry), registry[-1]) == (3, IDS["c"])
    assert nodes_of(registry) == {"a": 12, "b": 13, "c": 11}
    assert all(registry.key(IDS[name]) == IDENTITIES[name].public for name in "abc")
    sent = len("ask") + len("name") + len("challenge") + 32
    assert registry.registration_bytes == 3 * (sent + len("proof") + 32 + 64)
    assert absent(registry, wanted=3) == frozenset()
    assert grid.asked == [11, 12, 13], "once"


def another_signature(challenge):
    return {PROOF: IDENTITIES["a"].public + IDENTITIES["b"].prove(challenge)[32:]}


def an_old_proof(challenge):
    return {PROOF: IDENTITIES["b"].prove(bytes(32))}


@pytest.mark.parametrize(
    ("answer", "said"),
    [(FAILS, "no guard?answers"), ("b?", "it gave no proof"),
     (lambda c: {}, "it gave no proof"), (lambda c: {PROOF: "text"}, "it gave no proof"),
     (lambda c: {PROOF: b""}, "does not hold the key"),
     (another_signature, "does not hold the key"), (an_old_proof, "does not hold the key"),
     (lambda c: {PROOF: IDENTITIES["b"].prove(c) + b"1"}, "does not hold the key")],
)  # fmt: skip
def test_a_node_that_cannot_prove_who_it_is_is_named_and_left_out(caplog, answer, said):
    """Alice's id is a hash of her key: who has another key can neither take nor burn it."""
    _, registry = registered({11: "a", 12: answer})
    assert owners_of(registry) == ["a"]
    assert "node 12 did not register: " in caplog.text
    assert said in caplog.text


@pytest.mark.parametrize("answer", ["", "x" * 65, 7, b"a", "a\nb"])
def test_a_simulated_node_without_a_proper_name_is_left_out(caplog, answer):
    simulated = SimpleNamespace(shards=1, client_ids=ClientIds(1))
    registered({11: shard_name(0), 12: answer}, simulated=simulated)
    assert "node 12 did not register: it gave no name; left out" in caplog.text


def test_two_nodes_of_one_key_are_both_left_out(caplog):
    _, registry = registered({11: "twin", 12: "other", 13: "twin"})
    assert nodes_of(registry) == {"other": 12}
    assert f"client-id='{IDS['twin']}' must be unique" in caplog.text


def test_without_clients_a_run_does_not_begin():
    with pytest.raises(RunStalled, match="no client registered: 2 nodes were asked"):
        registered({11: FAILS, 12: FAILS})
    with pytest.raises(RunStalled, match="no client registered: 0 nodes"):
        registered({}, expected=3, timeout_seconds=0.05)
    _, registry = registered({}, 3, interrupted=lambda: True)
    assert len(registry) == 0


def test_nodes_that_come_late_are_waited_for():
    grid = Nodes({11: "a", 12: "b"})
    grid.online = []
    grid.get_node_ids = lambda: grid.online.append(11 + len(grid.online)) or grid.online[:2]
    registry = ClientRegistry(grid, None)
    registry.register(2, 30.0)
    assert owners_of(registry) == ["a", "b"]
    _, fewer = registered({11: "a"}, expected=2, timeout_seconds=0.2)
    assert owners_of(fewer) == ["a"], "after the time-out, those who are there will do"


def test_a_client_that_left_is_absent_until_its_node_is_back():
    grid, registry = registered({11: "a", 12: "b"})
    grid.online = [11]
    assert absent(registry) == {"b"}
    grid.online = [11, 12]
    assert absent(registry) == frozenset()
    assert grid.asked == [11, 12]


def test_a_client_that_returns_at_another_node_is_reached_there():
    grid, registry = registered({11: "a", 12: "b"})
    grid.names[13] = "b"
    grid.online = [11, 13]
    assert absent(registry) == frozenset()
    assert nodes_of(registry) == {"a": 11, "b": 13}


def test_a_client_that_joins_stands_where_the_order_has_it():
    grid, registry = registered({11: "a", 12: "c"})
    grid.names |= {13: "b"}
    grid.online = [11, 12, 13]
    assert absent(registry) == frozenset()
    assert owners_of(registry) == ["a", "b", "c"]


def test_a_name_stays_with_the_node_that_had_it_first(caplog):
    """Another node that claims it is told of once, and gets it once the first is gone."""
    grid, registry = registered({11: "a"})
    grid.names |= {12: "a"}
    grid.online = [11, 12]
    for _ in range(3):
        absent(registry)
    assert nodes_of(registry) == {"a": 11}
    assert caplog.text.count("must be unique") == 1
    grid.online = [12]
    assert absent(registry) == frozenset()
    assert nodes_of(registry) == {"a": 12}


def test_a_name_that_two_new_nodes_claim_is_given_to_neither():
    grid, registry = registered({11: "a"})
    grid.names |= {12: "twin", 13: "twin"}
    grid.online = [11, 12, 13]
    absent(registry)
    assert owners_of(registry) == ["a"]


def test_a_node_that_gave_no_name_is_asked_again_after_a_while(monkeypatch):
    grid, registry = registered({11: "a"})
    grid.names |= {12: FAILS}
    grid.online = [11, 12]
    for _ in range(4):
        absent(registry)
    assert grid.asked == [11, 12]
    grid.names[12] = "b"  # its guard is up now
    monkeypatch.setattr(client_registry, "ANSWER_PATIENCE_SECONDS", 0.0)
    absent(registry)
    assert owners_of(registry) == ["a", "b"]


def test_too_few_clients_are_waited_for_before_any_is_charged():
    grid, registry = registered({11: "a", 12: "b", 13: "c"})
    grid.online = [11, 12]
    before = grid.looks
    assert registry.absent(2, 5.0) == {IDS["c"]}
    assert grid.looks == before + 1, "enough are there"
    with pytest.raises(RunStalled, match="only 2 of 3 clients are there, min-replies=3; waited"):
        registry.absent(3, 0.02)
    returned = iter([[11], [11, 12], [11, 12, 13]])
    grid.get_node_ids = lambda: next(returned)
    assert registry.absent(3, 5.0) == frozenset()
    stopped = ClientRegistry(grid, None, interrupted=lambda: True)
    grid.get_node_ids = lambda: []
    assert stopped.absent(1, 5.0) is None


def test_simulated_clients_are_found_at_the_node_of_their_shard():
    simulated = SimpleNamespace(shards=2, client_ids=ClientIds(9))
    names = {11: shard_name(1), 12: shard_name(0)}
    grid, registry = registered(names, simulated=simulated)
    assert list(registry) == [f"client-0000{n}" for n in range(9)]
    for client in registry:
        assert registry.node_id(client) == {0: 12, 1: 11}[shard_of(client, 2)]
    grid.online = [11]
    assert absent(registry) == {client for client in registry if shard_of(client, 2) == 0}
    with pytest.raises(RunStalled, match="shard-0001 did not register: 2 nodes must host"):
        registered({12: shard_name(0)}, simulated=simulated)

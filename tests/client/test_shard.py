"""A shard of simulated clients, with real data and the run's own settings."""

import pytest
from flwr.app import Context, RecordDict

from client import shard
from client.shard import ShardHost
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.guard import FAILURES
from fed_gswgan.device.shards import SIMULATION_FOLDER, SimulatedClients, shard_of
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.mechanism import grid_step
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request, decode_release

SHARDS = 2


class World:
    """A run's folder of clients, and the request of its first round."""

    def __init__(self, folder, settings):
        self.config = Config.from_table(settings)
        source = open_source(self.config.shared)
        spec = spec_of(source)
        self.folder = folder
        self.clients = SimulatedClients(folder, partitions_of(source, self.config.shared), SHARDS)
        self.clients.create()
        server = self.config.algorithm.Server(self.config.own, spec, SeedStream(0), 4)
        query = server.request(1)
        self.request = Request(
            experiment_id="e", server_round=1, algorithm="gs-wgan", event=self.config.event(spec),
            tensors=query.tensors, unit_range=query.unit_range,
        )  # fmt: skip
        self.blob = self.request.encode()

    def host(self):
        return ShardHost(self.folder, self.config, SHARDS)

    def members(self, shard):
        return [name for name in self.clients.client_ids if shard_of(name, SHARDS) == shard]

    def context(self, shard):
        place = {"partition-id": shard, "num-partitions": SHARDS}
        return Context(
            run_id=1, node_id=2, node_config=place, state=RecordDict(),
            run_config=self.config.to_table(),
        )  # fmt: skip

    def charges(self, shard):
        with Ledger(self.clients.shard_folder(shard), self.clients.owners[shard]) as ledger:
            return {user: events.total() for user, events in ledger.releases().items()}


@pytest.fixture
def world(tmp_path, small_settings):
    return World(tmp_path / "clients", small_settings | {"max-clients": 6})


def test_every_member_is_answered_and_its_own_users_are_charged(world):
    answers = {}
    for number in range(SHARDS):
        members = world.members(number)
        answers |= zip(members, world.host().answer(number, [world.blob], members), strict=True)
        users = [user for name in members for user in world.clients.users(name)]
        assert world.charges(number) == dict.fromkeys(users, 1)
        assert not (world.clients.shard_folder(number) / FAILURES).exists()
    assert len(set(answers.values())) == len(answers) == 6
    for answer in answers.values():
        steps = decode_release(answer, world.request)
        deviation = (steps * grid_step(world.request.event)).std()
        assert deviation == pytest.approx(2.14, rel=6 / (2 * steps.size) ** 0.5)


def test_seeded_clients_answer_the_same_in_any_process_and_batch(world, tmp_path, small_settings):
    """Neither the worker nor the other clients of a message change a release."""
    shard, members = max(((n, world.members(n)) for n in range(SHARDS)), key=lambda m: len(m[1]))
    together = world.host().answer(shard, [world.blob], members)
    other = World(tmp_path / "other", small_settings | {"max-clients": 6})
    alone = [other.host().answer(shard, [other.blob], [name])[0] for name in reversed(members)]
    assert together == alone[::-1]
    assert world.host().answer(shard, [world.blob], members[:1]) == together[:1]
    assert set(world.charges(shard).values()) == {1}


def test_a_client_of_another_shard_or_of_none_is_not_answered(world):
    own, other = world.members(0), world.members(1)
    with pytest.raises(ValueError, match=f"{other[0]} does not belong to shard-0000"):
        world.host().answer(0, [world.blob], [own[0], other[0]])
    gone = next(name for n in range(6, 60) if shard_of(name := f"client-{n:05d}", SHARDS) == 0)
    with pytest.raises(ValueError, match="not in range"):
        world.host().answer(0, [world.blob], [gone])
    answers = world.host().answer(0, [world.blob], [own[0], own[0]])
    with pytest.raises(MalformedInput, match="named twice"):
        decode_release(answers[0], world.request)
    assert world.charges(0) == world.charges(1) == {}


def test_the_environment_names_the_run_and_the_node_its_shard(world, monkeypatch):
    assert shard.name_of(world.context(1)) == "shard-0001"
    with pytest.raises(ValueError, match="partition-id, num-partitions"):
        shard.name_of(world.context("first"))
    monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    with pytest.raises(RuntimeError, match="FED_GSWGAN_SIMULATION is not set"):
        shard.answer([world.blob], world.members(0), world.context(0))
    monkeypatch.setenv(SIMULATION_FOLDER, str(world.folder))
    members = world.members(1)
    found = shard.answer([world.blob], members, world.context(1))
    assert found == world.host().answer(1, [world.blob], members)
    assert set(world.charges(1).values()) == {1}
    with pytest.raises(ValueError, match="does not belong"):
        shard.answer([world.blob], members, world.context(0))
    assert world.clients.failure_logs() == [world.folder / FAILURES]

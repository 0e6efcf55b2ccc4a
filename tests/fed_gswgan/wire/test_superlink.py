"""What the fleet port reads of peers that are no registered device."""

import importlib

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.interceptors.runtime_version_interceptor import (
    RuntimeVersionClientInterceptor,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.federation import NoOpFederationManager

from deploy.federation import Relay, free_ports
from fed_gswgan.wire import superlink
from fed_gswgan.wire.superlink import LARGEST_MESSAGE_BYTES, LOOKUPS_A_SECOND, EarlyNodeAuth

flower = importlib.import_module("flwr.superlink.cli.flower_superlink")
LARGE = bytes(64 * 2**20)
ANY_SIZE = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]


@pytest.fixture
def state():
    objects = ObjectStoreFactory(":flwr-in-memory:")
    return LinkStateFactory(":flwr-in-memory:", NoOpFederationManager(), objects)


@pytest.fixture
def relay(state, monkeypatch):
    """A relay before the fleet port of Flower's own server."""
    monkeypatch.setattr(flower, "GRPC_MAX_MESSAGE_LENGTH", LARGEST_MESSAGE_BYTES)
    (port,) = free_ports(1)
    server = flower._run_fleet_api_grpc_rere(
        f"127.0.0.1:{port}", state, state.objectstore_factory, True, None, [EarlyNodeAuth(state)]
    )
    relay = Relay(("127.0.0.1", port))
    yield relay
    relay.close()
    server.stop(None).wait()


def stub(channel, key=None):
    """Return the calls of a SuperNode with this key."""
    interceptors = [RuntimeVersionClientInterceptor("SuperNode")]
    if key is not None:
        interceptors.append(NodeAuthClientInterceptor(key, key.public_key()))
    return FleetStub(grpc.intercept_channel(channel, *interceptors))


def register(state, key):
    public = public_key_to_bytes(key.public_key())
    return state.state().create_node("owner", "owner", public, 0), public


def code_of(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as found:
        call(*arguments, **options, timeout=60, wait_for_ready=True)
    return found.value.code()


@pytest.mark.parametrize("peer", ["no key", "another key", "a key and no signature", "junk"])
def test_of_a_peer_that_is_not_registered_no_body_is_read(state, relay, peer):
    """64 MiB are announced; a little of them fills the buffers on the way, and then it ends."""
    registered, other = (
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP384R1()),
    )
    _, public = register(state, registered)
    headers = {
        "a key and no signature": [
            (PUBLIC_KEY_HEADER, public), (TIMESTAMP_HEADER, "never"), (SIGNATURE_HEADER, b"x"),
        ],
        "junk": [(PUBLIC_KEY_HEADER, b"junk")],
    }.get(peer, [])  # fmt: skip
    with grpc.insecure_channel(f"127.0.0.1:{relay.port}", options=ANY_SIZE) as channel:
        calls = stub(channel, other if peer == "another key" else None)
        request = ActivateNodeRequest(public_key=LARGE, heartbeat_interval=30)
        code = code_of(calls.ActivateNode, request, metadata=headers)
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert relay.uplink_bytes < len(LARGE) / 8


def test_a_registered_device_is_served_up_to_the_size_of_a_reply(state, relay, monkeypatch):
    key = ec.generate_private_key(ec.SECP384R1())
    node, public = register(state, key)
    with grpc.insecure_channel(f"127.0.0.1:{relay.port}", options=ANY_SIZE) as channel:
        calls = stub(channel, key)
        found = calls.ActivateNode(
            ActivateNodeRequest(public_key=public, heartbeat_interval=30.0),
            timeout=60, wait_for_ready=True,
        )  # fmt: skip
        assert found.node_id == node
        calls.PullMessages(PullMessagesRequest(node=Node(node_id=node)), timeout=60)
        large = ActivateNodeRequest(public_key=bytes(LARGEST_MESSAGE_BYTES))
        assert code_of(calls.ActivateNode, large) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_keys_are_looked_up_so_often_a_second_and_known_ones_always(state, monkeypatch):
    key = ec.generate_private_key(ec.SECP384R1())
    _, public = register(state, key)
    guard, looked_up, now = EarlyNodeAuth(state), [], [100.0]
    look_up = state.state().get_node_id_by_public_key
    monkeypatch.setattr(
        state.state(), "get_node_id_by_public_key", lambda k: looked_up.append(k) or look_up(k)
    )
    monkeypatch.setattr(superlink.time, "monotonic", lambda: now[0])
    assert guard._is_registered(public)
    for number in range(1000):
        assert not guard._is_registered(b"key %d" % number)
    assert len(looked_up) == LOOKUPS_A_SECOND
    assert guard._is_registered(public)
    now[0] += 1
    other = ec.generate_private_key(ec.SECP384R1())
    _, public = register(state, other)
    assert guard._is_registered(public), "a new device need not wait longer"


def test_the_superlink_is_flowers_with_this_in_it(monkeypatch, tmp_path):
    """And what it writes is its own account's alone."""
    found = {}

    def started():
        (tmp_path / "state.db").touch()
        found.update(vars(flower))

    monkeypatch.setattr(flower, "flower_superlink", started)
    for name in ("NodeAuthServerInterceptor", "GRPC_MAX_MESSAGE_LENGTH"):
        monkeypatch.setattr(flower, name, getattr(flower, name))
    monkeypatch.setattr(superlink.sys, "argv", ["superlink", "--enable-supernode-auth"])
    before = superlink.os.umask(0o022)
    try:
        superlink.main()
    finally:
        superlink.os.umask(before)
    assert found["NodeAuthServerInterceptor"] is EarlyNodeAuth
    assert found["GRPC_MAX_MESSAGE_LENGTH"] == LARGEST_MESSAGE_BYTES
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0

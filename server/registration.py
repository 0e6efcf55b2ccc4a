"""Learns, once a run, which client answers at which node: node ids are random in every run."""

import logging
import time
from collections.abc import Callable

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fed_gswgan.wire.byte_meter import ByteMeter
from fed_gswgan.wire.message_types import REGISTER
from server.exchange import exchange

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0  # for nodes to appear; who comes later is not part of the run


def register_clients(
    grid: Grid,
    byte_meter: ByteMeter,
    expected: int,
    timeout_seconds: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Ask every node for its client id and return client id to node id, sorted by client id.

    The question and the answer do not depend on anybody's data.

    Args:
        grid: whose nodes are asked.
        byte_meter: counts both halves.
        expected: nodes to wait for before asking.
        timeout_seconds: for the nodes to appear, and again for their answers.
        interrupted: stops the waiting early.

    Raises:
        RuntimeError: no node answered, uninterrupted, or two nodes gave the same client id.
    """
    patience = min(timeout_seconds, LONGEST_WAIT_SECONDS)
    node_ids = _wait_for_nodes(grid, expected, patience, interrupted)
    messages = [
        Message(RecordDict({"config": ConfigRecord({"ask": "client-id"})}), node_id, REGISTER)
        for node_id in node_ids
    ]
    for message in messages:
        byte_meter.registration(message.content)
    nodes: dict[str, int] = {}
    for reply in exchange(grid, messages, timeout_seconds, interrupted):
        if reply.has_error():
            logger.warning("node %s did not register: %s", reply.metadata.src_node_id, reply.error)
            continue
        byte_meter.registration(reply.content)
        client_id = _client_id(reply.content)
        if client_id is None:
            logger.warning("node %s gave no client-id; left out", reply.metadata.src_node_id)
            continue
        if client_id in nodes:
            raise RuntimeError(
                f"client-id={client_id!r} must be unique: two nodes gave it; give each its own"
            )
        nodes[client_id] = reply.metadata.src_node_id
    if not nodes and not interrupted():
        raise RuntimeError(f"no client registered: {len(node_ids)} nodes were asked")
    return dict(sorted(nodes.items()))


def _client_id(records: RecordDict) -> str | None:
    config = records.get("config")
    client_id = config.get("client-id") if isinstance(config, ConfigRecord) else None
    return client_id if isinstance(client_id, str) and client_id else None


def _wait_for_nodes(
    grid: Grid, expected: int, timeout_seconds: float, interrupted: Callable[[], bool]
) -> list[int]:
    """Return the node ids once ``expected`` are there, or those there are after the time-out."""
    started, told = time.monotonic(), False
    while True:
        node_ids = list(grid.get_node_ids())
        waited = time.monotonic() - started
        if len(node_ids) >= expected or waited > timeout_seconds or interrupted():
            return node_ids
        if waited > 2 and not told:
            logger.warning(
                "%d of %d nodes are there; waiting up to %g s for the others (flwr run: "
                '--federation-config "num-supernodes=%d")',
                len(node_ids), expected, timeout_seconds, expected,
            )  # fmt: skip
            told = True
        time.sleep(0.1)

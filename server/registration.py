"""Learns at the start which client answers at which node; ``Roster`` keeps that up to date."""

import logging
import time
from collections.abc import Callable

from flwr.serverapp import Grid

from fed_gswgan.wire.byte_meter import ByteMeter
from server.exchange import exchange
from server.roster import answered_id, registration

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0  # for nodes to appear; who comes later joins the run then


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
        RuntimeError: no node answered, uninterrupted, with a client id that no other gave.
    """
    patience = min(timeout_seconds, LONGEST_WAIT_SECONDS)
    node_ids = _wait_for_nodes(grid, expected, patience, interrupted)
    messages = [registration(node_id, timeout_seconds) for node_id in node_ids]
    for message in messages:
        byte_meter.registration(message.content)
    claims: dict[str, list[int]] = {}
    for reply in exchange(grid, messages, timeout_seconds, interrupted):
        if (client_id := answered_id(reply, byte_meter)) is not None:
            claims.setdefault(client_id, []).append(reply.metadata.src_node_id)
    for client_id, claimants in claims.items():
        if len(claimants) > 1:
            logger.error(
                "client-id=%r must be unique: %d nodes gave it, and none of them is asked; give "
                "each device its own",
                client_id, len(claimants),
            )  # fmt: skip
    nodes = {c: claimants[0] for c, claimants in claims.items() if len(claimants) == 1}
    if not nodes and not interrupted():
        raise RuntimeError(f"no client registered: {len(node_ids)} nodes were asked")
    return dict(sorted(nodes.items()))


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

"""The ClientApp: a relay of bytes to the guard. No data, no mathematics and no PyTorch here.

Flower starts a process for every message, and the server ships this code: what protects the data is
the guard, in another process under another account. Only where clients are simulated does the guard
run in this one.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fed_gswgan.device.service import GuardUnreachable, ask, ask_for_proof
from fed_gswgan.wire.message_types import (
    CHALLENGE,
    CLIENT_FAILED,
    CLIENTS,
    GUARD_UNREACHABLE,
    NAME,
    PROOF,
    RECORD,
    REPLIES,
    REQUESTS,
)

logger = logging.getLogger(__name__)

app = ClientApp()


@app.query("register")
def register(message: Message, context: Context) -> Message:
    """Answer with the device's key and the proof that it has it, or the name of the shard."""

    def answer() -> ConfigRecord:
        if (socket := _guard_socket(context)) is not None:
            challenge = message.content.config_records[RECORD][CHALLENGE]
            if not isinstance(challenge, bytes):
                raise TypeError("a challenge must be bytes")
            return ConfigRecord({PROOF: ask_for_proof(socket, challenge)})
        from client.shard import name_of

        return ConfigRecord({NAME: name_of(context)})

    return _answered(message, answer)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Relay a request for all clients, or one for each, and their answers or refusals back."""

    def answer() -> ConfigRecord:
        asked = message.content.config_records[RECORD]
        blobs, clients = asked[REQUESTS], asked[CLIENTS]
        if not isinstance(blobs, list) or not isinstance(clients, list) or not clients:
            raise TypeError("requests and clients must be lists")
        requests = [blob for blob in blobs if isinstance(blob, bytes)]
        if len(requests) < len(blobs) or len(blobs) not in (1, len(clients)):
            raise TypeError("requests must be bytes, one for all clients or one for each")
        if (socket := _guard_socket(context)) is not None:
            return ConfigRecord({REPLIES: [ask(socket, requests[0])]})
        from client.shard import answer as answer_in_shard

        names = [str(client) for client in clients]
        return ConfigRecord({REPLIES: answer_in_shard(requests, names, context)})

    return _answered(message, answer)


def _guard_socket(context: Context) -> Path | None:
    """Return the guard's socket that this node was started with; None for a simulated client."""
    path = context.node_config.get("guard")
    return Path(str(path)) if path is not None else None


def _answered(message: Message, answer: Callable[[], ConfigRecord]) -> Message:
    """Reply with the answer, or with an error that tells no more than the answer would have."""
    try:
        return Message(RecordDict({RECORD: answer()}), reply_to=message)
    except GuardUnreachable as error:
        logger.error(
            "%s; is `fed-gswgan device serve` running, and may this account use it?", error
        )
        reason = "GUARD_UNREACHABLE: no guard answers on the device; ask again later"
        return Message(Error(GUARD_UNREACHABLE, reason), reply_to=message)
    except Exception:  # what failed is not told: even the kind of an error may depend on data
        logger.exception("client failed")
        return Message(Error(CLIENT_FAILED, "client failed; see its own log"), reply_to=message)

"""The ClientApp: a relay to the guard. No data, no mathematics and no PyTorch here.

Flower starts a process for every message, and the server ships this code: what protects the data is
the guard, in another process under another account. Only where clients are simulated does the guard
run in this one.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.guard_relay import Refused, registered_id, relayed
from fed_gswgan.device.guard_client import GuardUnreachable
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.wire.message_types import CLIENT_FAILED, GUARD_UNREACHABLE
from fed_gswgan.wire.release_guard import release_guard

logger = logging.getLogger(__name__)

app = ClientApp(mods=[release_guard])


@app.query("register")
def register(message: Message, context: Context) -> Message:
    """Answer with the stable client id."""

    def answer() -> RecordDict:
        if (socket := _guard_socket(context)) is not None:
            client_id = registered_id(socket)
        else:
            from client.virtual_device import client_id_of

            client_id = client_id_of(context)
        return RecordDict({"config": ConfigRecord({"client-id": client_id})})

    return answered(message, answer)


@app.train("gswgan")
def train(message: Message, context: Context) -> Message:
    """Relay a train request to the guard and its reply, or its refusal, back."""

    def answer() -> RecordDict:
        if (socket := _guard_socket(context)) is not None:
            return relayed(socket, message)
        from client.virtual_device import answer_train

        return answer_train(message.content, context)

    return answered(message, answer)


@app.train("fedavg_gan")
def train_fedavg_gan(message: Message, context: Context) -> Message:
    """Likewise for the baseline; a device answers it only if its owner trusts the server."""

    def answer() -> RecordDict:
        if (socket := _guard_socket(context)) is not None:
            return relayed(socket, message)
        from client.virtual_device import answer_update

        return answer_update(message.content, context)

    return answered(message, answer)


def _guard_socket(context: Context) -> Path | None:
    """Return the guard's socket that this node was started with; None for a simulated client."""
    path = context.node_config.get("guard")
    return Path(str(path)) if path is not None else None


def answered(message: Message, answer: Callable[[], RecordDict]) -> Message:
    """Reply with the answer, or with an error that tells no more than the answer would have."""
    try:
        return Message(answer(), reply_to=message)
    except Refused as refused:
        return Message(Error(refused.code, refused.reason), reply_to=message)
    except Refusal as refusal:
        return Message(Error(refusal.code, f"{refusal.name}: {refusal}"), reply_to=message)
    except GuardUnreachable as error:
        logger.error(
            "%s; is `fed-gswgan device serve` running, and may this account use it?", error
        )
        reason = "GUARD_UNREACHABLE: no guard answers on the device; ask again later"
        return Message(Error(GUARD_UNREACHABLE, reason), reply_to=message)
    except Exception:  # what failed is not told: even the kind of an error may depend on data
        logger.exception("client failed")
        return Message(Error(CLIENT_FAILED, "client failed; see its own log"), reply_to=message)

"""The ClientApp: decode, ask the guard, encode. No data and no mathematics here."""

import logging
from collections.abc import Callable

import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.virtual_device import client_id_of, open_device
from fed_gswgan.device.client_folder import note_failure
from fed_gswgan.device.virtual_clients import simulation_folder
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.profiling import timed
from fed_gswgan.wire.codec import decode_request, encode_reply
from fed_gswgan.wire.messages import CLIENT_FAILED
from fed_gswgan.wire.release_guard import release_guard
from fed_gswgan.wire.update_codec import decode_update_request, encode_update_reply

logger = logging.getLogger(__name__)

app = ClientApp(mods=[release_guard])


@app.query("register")
def register(message: Message, context: Context) -> Message:
    """Answer with the stable client id."""
    try:
        config = ConfigRecord({"client-id": client_id_of(context)})
        return Message(RecordDict({"config": config}), reply_to=message)
    except Exception:
        return _failure(message)


@app.train("gswgan")
def train(message: Message, context: Context) -> Message:
    """Relay a train request to the guard and its reply, or its refusal, back."""

    def answer(content: RecordDict) -> RecordDict:
        guard = open_device(context).guard
        with timed("codec"):
            request = decode_request(content)
        reply = guard.answer(request)
        with timed("codec"):
            return encode_reply(reply, request.uplink_codec)

    return _relayed(message, answer)


@app.train("fedavg_gan")
def train_fedavg_gan(message: Message, context: Context) -> Message:
    """Likewise for the baseline; a device answers it only if its owner trusts the server."""

    def answer(content: RecordDict) -> RecordDict:
        guard = open_device(context).update_guard
        return encode_update_reply(guard.answer(decode_update_request(content)))

    return _relayed(message, answer)


def _relayed(message: Message, answer: Callable[[RecordDict], RecordDict]) -> Message:
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    try:
        with timed("answer"):
            return Message(answer(message.content), reply_to=message)
    except Refusal as refusal:
        return Message(Error(refusal.code, f"{refusal.name}: {refusal}"), reply_to=message)
    except Exception:
        return _failure(message)


def _failure(message: Message) -> Message:
    """Say that something failed and not what: even the kind of an error may depend on data."""
    logger.exception("client failed")
    if (folder := simulation_folder()) is not None:
        note_failure(folder)
    return Message(Error(CLIENT_FAILED, "client failed; see its own log"), reply_to=message)

"""The ClientApp: decode, ask the guard, encode. No data and no mathematics here."""

import logging

import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.virtual_device import client_id_of, open_device
from fed_gswgan.privacy.ledger_file import PrivacyBudgetExhausted
from fed_gswgan.wire.messages import (
    CLIENT_FAILED,
    MALFORMED_REQUEST,
    REFUSED,
    MalformedRequestError,
)

logger = logging.getLogger(__name__)

app = ClientApp()


@app.query("register")
def register(message: Message, context: Context) -> Message:
    """Answer with the stable client id."""
    config = ConfigRecord({"client-id": client_id_of(context)})
    return Message(RecordDict({"config": config}), reply_to=message)


@app.train("gswgan")
def train(message: Message, context: Context) -> Message:
    """Relay a train request to the guard and its reply, or its refusal, back."""
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    try:
        guard, codec = open_device(context)
        reply = guard.answer(codec.decode_request(message.content))
        return Message(codec.encode_reply(reply), reply_to=message)
    except MalformedRequestError as error:
        return _refusal(MALFORMED_REQUEST, error, message)
    except PrivacyBudgetExhausted as error:
        return _refusal(REFUSED, error, message)
    except Exception as error:
        # The text of any other error may depend on data: it stays in this machine's log.
        logger.exception("client failed")
        return Message(
            Error(CLIENT_FAILED, f"client failed: {type(error).__name__}"), reply_to=message
        )


def _refusal(code: int, error: Exception, message: Message) -> Message:
    """Say which rule refused; decided from the request and the ledger, before data is read."""
    return Message(Error(code, f"{type(error).__name__}: {error}"), reply_to=message)

"""A ClientApp that forges its replies; an app's folder holds it as ``client/app.py``.

Beside it lie the table, as ``client/forged_replies.py``, and the honest app, ``client/honest.py``,
which registers, and answers for the device that the others would mislead.
"""

import numpy as np
from client.forged_replies import SENT_OVER_GRPC, forged_parts, forged_records
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import honest

app = ClientApp()


@app.query("register")
def register(message: Message, context: Context) -> Message:
    return honest.register(message, context)


@app.train("gswgan")
def train(message: Message, context: Context) -> Message:
    number = int(str(context.node_config["guard"]).split("device-")[1].split("/")[0])
    if number == 0:
        return honest.train(message, context)
    server_round = int(message.metadata.group_id)
    if server_round == 6:
        return Message(RecordDict({"config": unreadable()}), reply_to=message)
    kind = SENT_OVER_GRPC[2 * (server_round - 1) + number - 1]
    draw = np.random.default_rng(server_round)
    return Message(forged_records(forged_parts(kind, draw, server_round)), reply_to=message)


def unreadable() -> ConfigRecord:
    """Return a record whose bytes have a valid head and are no record."""
    record = ConfigRecord({"x": 1})
    body = b"\xff\xff\xff"
    record.__dict__["deflate"] = lambda: (
        b"ConfigRecord  " + str(len(body)).encode() + b"\x00" + body
    )
    return record

"""Rounds of Flower's own ``send_and_receive`` with arrays that nobody computes."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server_app = ServerApp()
client_app = ClientApp()


def payload(size: int) -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"a": Array(np.zeros(size, np.uint8))})})


@client_app.train()
def train(message: Message, context: Context) -> Message:
    return Message(payload(int(context.run_config["bytes"])), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    settings = context.run_config
    while len(node_ids := list(grid.get_node_ids())) < int(settings["nodes"]):
        time.sleep(0.5)
    content = payload(int(settings["bytes"]))
    seconds = []
    for _ in range(int(settings["rounds"])):
        started = time.monotonic()
        messages = [Message(content, node_id, "train") for node_id in node_ids]
        replies = list(grid.send_and_receive(messages, timeout=300))
        if len(replies) != len(messages) or any(reply.has_error() for reply in replies):
            raise RuntimeError("a node did not answer")
        seconds.append(time.monotonic() - started)
    Path(str(settings["output"])).write_text(json.dumps(seconds))

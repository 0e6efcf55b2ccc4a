"""The client app of a hostile server's bundle, as ``client/app.py`` of an app's folder.

It registers honestly, and then asks the guard for what a device must not give. What it got goes
beside the device's folder, and to the server. Beside it lies the honest app, ``client/honest.py``.
"""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import honest
from fed_gswgan.device.service import ask
from fed_gswgan.wire.message_types import RECORD, REPLIES, REQUESTS
from fed_gswgan.wire.messages import Request

app = ClientApp()


class Touch:
    """What a guard would run that unpickles."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/fed-gswgan-unpickled").touch, ())


@app.query("register")
def register(message: Message, context: Context) -> Message:
    return honest.register(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    socket = Path(str(context.node_config["guard"]))
    (blob,) = message.content.config_records[RECORD][REQUESTS]
    assert isinstance(blob, bytes)
    answers = {name: ask(socket, asked) for name, asked in requests(blob).items()}
    found = {name: answer.hex() for name, answer in answers.items()}
    (socket.parent.parent / "found.json").write_text(json.dumps(found | {"request": blob.hex()}))
    stolen = RecordDict({RECORD: ConfigRecord({REPLIES: [b"".join(answers.values())]})})
    return Message(stolen, reply_to=message)


def requests(blob: bytes) -> dict[str, bytes]:
    """Return what is asked, by name; the server's own request comes first."""
    request = Request.decode(blob)
    event, tensors = request.event, request.tensors

    def of_event(**changed: Any) -> bytes:
        return replace(request, event=replace(event, **changed)).encode()

    together = replace(event, trust="secure-aggregation", honest=2)
    beyond = {**tensors, "samples": np.full_like(tensors["samples"], 2.0)}
    return {
        "honest": blob,
        "honest again, to average the noise out": blob,
        "less noise": of_event(noise_stddev=event.noise_stddev / 2),
        "a larger bound": of_event(clipping_bound=1e9),
        "a sum of one": replace(request, event=together, modulus_bits=30).encode(),
        "noise of the server": of_event(trust="central"),
        "fewer rows": of_event(rows=1),
        "another algorithm": replace(request, algorithm="fedavg-gan").encode(),
        "samples beyond": replace(request, tensors=beyond).encode(),
        "another tensor": replace(request, tensors={**tensors, "x": np.zeros(1)}).encode(),
        "a pickle": pickle.dumps(Touch()),
        "half a request": blob[:99],
        "nothing": b"",
    }

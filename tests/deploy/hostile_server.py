"""A ServerApp that asks for what no device may answer; an app holds it as ``server/app.py``.

It asks each node one question of each kind and writes what came back to ``output-dir``, as JSON:
kind to the error's reason, or to ``"answered"``.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from fed_gswgan.wire.message_types import TRAIN, UPDATE
from fed_gswgan.wire.messages import TrainRequest
from fed_gswgan.wire.record_codec import encode_request
from server.exchange import exchange

PATIENCE_SECONDS = 120.0

app = ServerApp()


def request(samples: int = 8) -> RecordDict:
    """Return a request that a device would answer."""
    train_request = TrainRequest(
        experiment_id="hostile",
        server_round=1,
        checkpoint_round=0,
        samples_BCHW=np.full((samples, 1, 28, 28), 0.5, np.float32),
        labels_B=np.zeros(samples, np.int64),
        critic_samples_NBCHW=np.zeros((0, samples, 1, 28, 28), np.float32),
        critic_labels_NB=np.zeros((0, samples), np.int64),
        clipping="sample",
        clipping_bound=1.0,
        noise_stddev=2.14,
    )
    return encode_request(train_request, "float32")


def asked(**config: Any) -> RecordDict:
    records = request()
    settings = {name.replace("_", "-"): value for name, value in config.items()}
    records["config"] = ConfigRecord({**records["config"], **settings})
    return records


def with_arrays(**arrays: Array) -> RecordDict:
    records = request()
    records["arrays"] = ArrayRecord({**records["arrays"], **arrays})
    return records


def beside(record: Any) -> RecordDict:
    records = request()
    records["more"] = record
    return records


NAN = np.full((8, 1, 28, 28), np.nan, np.float32)
# Kind of forgery: what is sent, and as which kind of message.
FORGED = {
    "hardly any noise": (lambda: asked(noise_stddev=1e-6), TRAIN),
    "no noise": (lambda: asked(noise_stddev=0.0), TRAIN),
    "a larger bound": (lambda: asked(clipping_bound=1e9), TRAIN),
    "no clipping": (lambda: asked(clipping="none"), TRAIN),
    "a seed for the noise": (lambda: asked(noise_source="seeded", seed=0), TRAIN),
    "more rows": (lambda: request(samples=64), TRAIN),
    "pixels that are none": (lambda: with_arrays(samples=Array(NAN)), TRAIN),
    "a pickle": (lambda: with_arrays(samples=Array("object", (1,), "numpy.ndarray", b"\x80\x04N.")),
                 TRAIN),
    "a metric beside it": (lambda: beside(MetricRecord({"loss": 1.0})), TRAIN),
    "an update without noise": (
        lambda: RecordDict({
            "arrays": ArrayRecord({n: Array(np.zeros(4, "f4")) for n in ("generator", "critic")}),
            "config": ConfigRecord({"experiment-id": "hostile", "server-round": 1,
                                    "clipping-bound": 1.0, "noise-stddev": 2.14}),
        }),
        UPDATE,
    ),
}  # fmt: skip


@app.main()
def main(grid: Grid, context: Context) -> None:
    started = time.monotonic()
    while not (node_ids := list(grid.get_node_ids())):
        assert time.monotonic() - started < PATIENCE_SECONDS
        time.sleep(0.5)
    found = {}
    for kind, (build, message_type) in FORGED.items():
        records = build()
        messages = [Message(records, n, message_type, ttl=PATIENCE_SECONDS) for n in node_ids[:1]]
        (reply,) = exchange(grid, messages, PATIENCE_SECONDS)
        found[kind] = reply.error.reason if reply.has_error() else "answered"
    Path(str(context.run_config["output-dir"])).write_text(json.dumps(found))

"""An app for worker processes: they import it by name, as they do the shipped one."""

import os
import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def load() -> ClientApp:
    return app


@app.query("echo")
def echo(message: Message, context: Context) -> Message:
    asked = message.content.config_records["config"]
    time.sleep(float(asked.get("seconds", 0.0)))
    served = int(context.state.config_records.get("served", ConfigRecord({"times": 0}))["times"])
    context.state["served"] = ConfigRecord({"times": served + 1})
    config = ConfigRecord({
        "partition": context.node_config["partition-id"], "pid": os.getpid(),
        "served-before": served, "moment": time.monotonic(), **context.run_config,
    })  # fmt: skip
    return Message(RecordDict({"config": config}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    raise RuntimeError("secret of the data")


@app.query("die")
def die(message: Message, context: Context) -> Message:
    os._exit(7)

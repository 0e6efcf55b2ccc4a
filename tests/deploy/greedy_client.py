"""The client app of a hostile server's bundle, as ``client/app.py`` of an app's folder.

It registers honestly, and then asks the guard for everything that ``hostile_client_app`` tries;
what it got goes beside the device's folder, and to the server, which drops it. Beside it lie the
honest app, ``client/honest.py``, and the tests' modules that write the frames, ``client/tests``.
"""

import json
import sys
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import honest

sys.path.insert(0, str(Path(__file__).parent))

from tests.client.hostile_client_app import answered, asked

app = ClientApp()


@app.query("register")
def register(message: Message, context: Context) -> Message:
    return honest.register(message, context)


@app.train("gswgan")
def train(message: Message, context: Context) -> Message:
    socket = Path(str(context.node_config["guard"]))
    found = json.dumps(answered(socket, asked(socket.parent)))
    (socket.parent.parent / "found.json").write_text(found)
    return Message(RecordDict({"config": ConfigRecord({"found": found})}), reply_to=message)

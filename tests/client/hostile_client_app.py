"""The client app of a hostile server's bundle: it has the relay's account, and tries everything.

``python -m tests.client.hostile_client_app SOCKET DEVICE_FOLDER DATA GUARD_PROCESS [UID GID]``
prints what it got, as JSON: for each attempt the answer's kind and reason, or the error. As root it
becomes that account first, once everything it needs is loaded.
"""

import json
import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fed_gswgan.device.guard_frame import Frame, pack
from tests.fed_gswgan.device.forged_frames import Touch, raw
from tests.fed_gswgan.device.served_device import SAMPLES, exchange, train_frame


def main(socket: Path, folder: Path, data: Path, guard_process: int, *account: int) -> Any:
    frames = asked(folder)
    if account:
        user, group = account
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    found: dict[str, Any] = answered(socket, frames)
    found["files"] = {name: attempt(do) for name, do in touched(folder, data).items()}
    found["files"]["guard's memory"] = attempt(
        lambda: open(f"/proc/{guard_process}/mem", "rb").close()
    )
    found["files"]["guard's environment"] = attempt(
        lambda: Path(f"/proc/{guard_process}/environ").read_bytes()
    )
    found["files"]["guard's life"] = attempt(lambda: os.kill(guard_process, signal.SIGKILL))
    return found


def answered(socket: Path, frames: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the guard answers to each frame, as JSON has it."""
    answers = {name: exchange(socket, written) for name, written in frames.items()}
    return {
        name: {
            "kind": answer.kind,
            "reason": answer.config.get("reason"),
            "config": {k: v for k, v in answer.config.items() if k not in ("reason", "code")},
            "arrays": {k: [list(v.shape), float(v.std())] for k, v in answer.arrays.items()},
            "bytes": {k: v.tobytes().hex()[:64] for k, v in answer.arrays.items()},
        }
        for name, answer in answers.items()
    }


def require_sanitized(answers: Mapping[str, Any], codes: Collection[str], log: str) -> None:
    """Require that the honest request got one sanitized reply, and the others a logged refusal."""
    replies = {name: answer for name, answer in answers.items() if answer["kind"] == "reply"}
    assert set(replies) == {"honest", "honest again, to average the noise out"}
    for reply in replies.values():
        assert reply["config"] == {"server-round": 1}
        ((shape, deviation),) = reply["arrays"].values()
        assert shape == [SAMPLES, 1, 28, 28]
        assert abs(deviation / 2.14 - 1) < 6 / math.sqrt(2 * SAMPLES * 784)
    first, again = (reply["bytes"] for reply in replies.values())
    assert first == again
    for name, answer in answers.items():
        if name not in replies:
            assert (answer["kind"], answer["arrays"]) == ("refusal", {}), name
            assert answer["reason"].split(":")[0] in codes, name
            assert answer["reason"] in log


def asked(folder: Path) -> dict[str, bytes]:
    """Return what is written to the socket, by name."""
    honest = train_frame(1)

    def changed(**config: Any) -> bytes:
        return pack(train_frame(2, **{k.replace("_", "-"): v for k, v in config.items()}))

    return {
        "honest": pack(honest),
        "honest again, to average the noise out": pack(honest),
        "no noise": changed(noise_stddev=0.0),
        "hardly any noise": changed(noise_stddev=1e-6),
        "a huge bound": changed(clipping_bound=1e9),
        "no clipping": changed(clipping="none"),
        "a switch that skips clipping": changed(skip_clipping=True),
        "a seed for the noise": changed(noise_source="seeded", seed=0),
        "a budget of its own": changed(max_epsilon=1e9),
        "a call": pack(Frame(kind="ledger.clear", config={"path": str(folder / "ledger.jsonl")})),
        "a file": pack(Frame(kind="read.data", config={"path": "/etc/passwd"})),
        "an update without noise": pack(
            Frame(
                kind="train.fedavg_gan",
                config={
                    "experiment-id": "e", "server-round": 1,
                    "clipping-bound": 1.0, "noise-stddev": 2.14,
                },
                arrays={name: np.zeros(SAMPLES, np.float32) for name in ("generator", "critic")},
            )
        ),
        "a pickle": pickle.dumps(Touch("/tmp/fed-gswgan-unpickled")),
        "a pickle in a frame": raw(pickle.dumps(Touch("/tmp/fed-gswgan-unpickled"))),
        "half a frame": pack(honest)[:99],
    }  # fmt: skip


def touched(folder: Path, data: Path) -> dict[str, Callable[[], Any]]:
    """Return what is tried on the device's files, by name."""
    ledger = folder / "ledger.jsonl"
    return {
        "read the data": lambda: list(data.iterdir()),
        "read the folder": lambda: list(folder.iterdir()),
        "read the settings": lambda: (folder / "device.toml").read_text(),
        "loosen the policy": lambda: (folder / "policy.toml").write_text("max-epsilon = 1e9"),
        "read the ledger": lambda: ledger.read_text(),
        "empty the ledger": lambda: os.truncate(ledger, 0),
        "remove the ledger": lambda: ledger.unlink(),
        "move the ledger away": lambda: ledger.rename("/tmp/ledger.jsonl"),
        "loosen the ledger": lambda: ledger.chmod(0o666),
        "remove the ledger's head": lambda: (folder / "ledger.head").unlink(),
        "take the socket's place": lambda: (folder / "guard.sock").unlink(),
        "put a file beside": lambda: (folder / "new").touch(),
        "move the folder": lambda: folder.rename("/tmp/device"),
    }


def attempt(do: Callable[[], Any]) -> str:
    try:
        do()
        return "done"
    except OSError as error:
        return type(error).__name__


if __name__ == "__main__":
    paths, numbers = map(Path, sys.argv[1:4]), map(int, sys.argv[4:])
    print(json.dumps(main(*paths, *numbers)))

"""``device.toml``: what the owner of a device settles once: who, whose data, which critic."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fed_gswgan.config import CLASS_SETS, Config
from fed_gswgan.data.characters import emnist_class_set
from fed_gswgan.flat_table import Value, to_table, toml_value
from fed_gswgan.training_config import AdamConfig, CriticConfig, GeneratorConfig
from fed_gswgan.validation import one_of

CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SOCKET = "guard.sock"
# The keys of a run that a device trains by. What protects is in the policy, the noise is secure,
# and a request says how numbers are written on the wire.
FEDAVG_GAN_KEYS = {"batch-size"} | set(to_table(GeneratorConfig()))
TRAINING_KEYS = {"seed"} | set(to_table(CriticConfig())) | set(to_table(AdamConfig()))


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """The owner's settings of one device.

    Attributes:
        client_id: what the server calls the client; also the ledger's user.
        data: absolute path of the images.
        classes: those of the run, in the order of the labels: the name of one of EMNIST's sets
            (``digits``, ``letters``, ``all``, ``merged``) or the names themselves.
        training: keys of a run's settings that say how the critic is built and trained; for
            FedAvg-GAN also the generator's and ``batch-size``. A missing one takes its default.
        socket: absolute path; empty: ``guard.sock`` in the device's folder.
    """

    client_id: str
    data: str
    classes: str | tuple[str, ...] = "digits"
    training: Mapping[str, Value] = field(default_factory=dict)
    socket: str = ""

    def __post_init__(self) -> None:
        check_client_id(self.client_id)
        for name in ("data", "socket"):
            path = getattr(self, name)
            if type(path) is not str or not path.isprintable():
                raise ValueError(f"{name}={path!r} must be a path without unprintable characters")
            if not Path(path).is_absolute() and (path or name == "data"):
                raise ValueError(f"{name}={path!r} must be an absolute path")
        names = self.class_names
        if not names or len(set(names)) < len(names) or len(names) > 256:
            raise ValueError(f"classes={list(names)} must be 1 .. 256 names, each given once")
        allowed = TRAINING_KEYS | FEDAVG_GAN_KEYS
        for key, value in self.training.items():
            if key not in allowed:
                raise ValueError(
                    f"training: {key}={value!r}: no setting of a device; known: {sorted(allowed)}"
                )
        self.config()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the labels."""
        if isinstance(self.classes, tuple):
            return self.classes
        one_of(CLASS_SETS, classes=self.classes)
        return emnist_class_set(self.classes).names

    def config(self) -> Config:
        """Return the settings as the guards take them."""
        return Config.from_run_config(self.training)

    def to_toml(self) -> str:
        """Return the file's text."""
        lines = [f"client-id = {toml_value(self.client_id)}", f"data = {toml_value(self.data)}"]
        classes = list(self.classes) if isinstance(self.classes, tuple) else self.classes
        lines += [f"classes = {toml_value(classes)}  # of the run, in the order of the labels"]
        if self.socket:
            lines += [f"socket = {toml_value(self.socket)}"]
        lines += ["", "[training]  # the critic's; a missing key takes its default"]
        lines += [f"{key} = {toml_value(value)}" for key, value in self.training.items()]
        return "\n".join(lines) + "\n"


def check_client_id(client_id: object) -> None:
    """Require a name that is safe in paths, messages and logs."""
    if not isinstance(client_id, str) or not CLIENT_ID.fullmatch(client_id):
        raise ValueError(f"client-id={client_id!r} must be 1 to 64 letters, digits, '.', '_', '-'")


def read_settings(path: Path) -> DeviceSettings:
    """Read ``device.toml``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, or a setting is unknown, missing, of another type or out of
            range.
    """
    table: dict[str, Any] = tomllib.loads(path.read_text())
    known = {"client-id", "data", "classes", "training", "socket"}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{path.name}: {key}={value!r}: no such setting; known: {known}")
    for key in ("client-id", "data"):
        if key not in table:
            raise ValueError(f"{path.name}: {key} must be given")
    classes = table.get("classes", "digits")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        classes = tuple(classes)
    if not isinstance(classes, str | tuple) or not isinstance(table.get("training", {}), dict):
        raise ValueError(
            f"{path.name}: classes must be a word or a list of names, training a table"
        )
    return DeviceSettings(
        client_id=table["client-id"],
        data=table["data"],
        classes=classes,
        training=table.get("training", {}),
        socket=table.get("socket", ""),
    )


def device_share(run_config: Mapping[str, Value]) -> dict[str, Value]:
    """Return those of a run's settings that are also a device's; the others are the server's."""
    Config.from_run_config(run_config)
    keys = TRAINING_KEYS
    if run_config.get("algorithm") == "fedavg-gan":
        keys = keys | FEDAVG_GAN_KEYS
    return {key: value for key, value in run_config.items() if key in keys}

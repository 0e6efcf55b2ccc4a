"""Folder of a device: made once by its owner, opened by the guard's process.

``device.toml``, ``policy.toml``, ``roster.toml``, ``identity.key``, the ledger with its head and
replies, ``rounds.db``, ``failures.log``, ``guard.sock``. Its group may pass through the folder, so
that a relay reaches the socket; everything in it but the socket is the owner's alone.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from fed_gswgan.algorithms.base import ClientView, find_algorithm
from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE, emnist_class_set
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.data.image_folder import read_own_images
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.refusal_limit import RefusalLimit
from fed_gswgan.device.roster import ROSTER, read_roster
from fed_gswgan.device.service import check_path
from fed_gswgan.device.sums import ROUNDS, Sums
from fed_gswgan.privacy.durable import write_durably
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger, has_line, owners_hash
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.noise import NoiseSource, SecureNoise
from fed_gswgan.privacy.policy import Policy, read_policy
from fed_gswgan.privacy.refusals import (
    RequestExceedsPolicy,
    TooManyRefusals,
    UnsafeAggregation,
)
from fed_gswgan.secure_aggregation.keys import KEY_BYTES, Identity
from fed_gswgan.secure_aggregation.protocol import Device, Phase
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Settings, Value, check_keys, read_toml, toml_value
from fed_gswgan.wire.messages import RELEASED, encode_refusal
from fed_gswgan.wire.sum_messages import SumMessage, is_sum_message, named_by

logger = logging.getLogger(__name__)

SETTINGS, POLICY, SOCKET = "device.toml", "policy.toml", "guard.sock"
IDENTITY = "identity.key"  # Ed25519, 32 bytes
UNFINISHED = "init.unfinished"  # until a device is made whole
FOLDER_MODE = 0o710
CLASS_SETS = ("digits", "letters", "all", "merged")  # of EMNIST
ALGORITHM_KEYS = ("algorithm", "algorithm-settings")

# What an owner who names no policy starts from; the budget is small on purpose.
CAREFUL = Policy(clipping="message")


class DeviceSettings(Settings):
    """The owner's settings of one device.

    Attributes:
        name: of the ledger's user, and what seeds are keyed by; the server knows the device by the
            hash of its key, and is not told.
        data: absolute path of the images.
        classes: those of the run, in the order of the labels: the name of one of EMNIST's sets
            (``digits``, ``letters``, ``all``, ``merged``) or the names themselves.
        training: ``algorithm``, ``seed``, and keys of the algorithm that a run's settings have too.
            What they decide (batch size, basis) binds the device: another request is refused.
        socket: absolute path; empty: ``guard.sock`` in the device's folder.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    data: str
    classes: str | tuple[str, ...] = "digits"
    training: dict[str, Any] = Field(default_factory=dict)
    socket: str = ""

    @model_validator(mode="after")
    def _check(self) -> "DeviceSettings":
        for name in ("data", "socket"):
            path = getattr(self, name)
            if not path.isprintable() or (
                not Path(path).is_absolute() and (path or name == "data")
            ):
                raise ValueError(f"{name}={path!r} must be an absolute path that can be printed")
        if isinstance(self.classes, str) and self.classes not in CLASS_SETS:
            sets = ", ".join(CLASS_SETS)
            raise ValueError(f"classes={self.classes!r} must be {sets}, or a list of names")
        names = self.class_names
        if not names or len(set(names)) < len(names) or len(names) > 256:
            raise ValueError(f"classes={list(names)} must be 1 .. 256 names, each given once")
        check_keys(self.training, training_keys(self.training), "training: ")
        self.config()
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the labels."""
        if isinstance(self.classes, tuple):
            return self.classes
        return emnist_class_set(self.classes).names

    @property
    def spec(self) -> DataSpec:
        """Image shape and number of classes."""
        return DataSpec(IMAGE_SHAPE, len(self.class_names), self.class_names)

    def config(self) -> Config:
        """Return the settings as a run has them."""
        return Config.from_table(self.training)

    def to_toml(self) -> str:
        """Return the file's text."""
        table = self.to_table()
        training = table.pop("training")
        lines = [f"{key} = {toml_value(value)}" for key, value in table.items() if value != ""]
        lines += ["", "[training]  # of the algorithm; a missing key takes its default"]
        return "\n".join([*lines, *(f"{k} = {toml_value(v)}" for k, v in training.items()), ""])


class OpenDevice(NamedTuple):
    """A device whose ledger was read and verified."""

    settings: DeviceSettings
    policy: Policy
    identity: Identity
    guard: Guard
    sums: Sums | None
    client: ClientView
    socket: Path
    refusals: RefusalLimit

    def answer(self, blob: bytes) -> bytes:
        """Answer a request, or a message of secure aggregation.

        What data was read for leaves at a time that the request and the policy decide. After too
        many refusals the answer is a constant, whatever the request says.
        """
        came = time.monotonic()
        named = named_by(blob)
        try:
            self.refusals.check(*named, came)
        except TooManyRefusals as refusal:
            return encode_refusal(refusal)
        if not is_sum_message(blob):
            (answer,) = self.guard.answer(blob, [self.client])
            phase = None
        elif self.sums is None:
            logger.warning("refused: %s is missing: fed-gswgan device roster add", ROSTER)
            answer, phase = encode_refusal(UnsafeAggregation("no roster")), None
        else:
            answer = self.sums.answer(blob, self.client)
            phase = SumMessage.decode(blob).phase if answer[:1] == RELEASED else None
        if answer[:1] != RELEASED or phase == Phase.KEYS:  # a round that is begun takes disk, too
            self.refusals.note(*named, came)
        elif phase in (None, Phase.MASKED):
            self.refusals.note_release(named[0])
            self._wait_until_due(time.monotonic() - came)
        return answer

    def read_data(self) -> None:
        """Read the data now, so that no answer waits for it.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        _ = self.client.dataset

    def _wait_until_due(self, took_seconds: float) -> None:
        due = self.policy.answer_seconds
        if not due:
            return
        if took_seconds > due:
            logger.warning(
                "an answer took %.2f s: it leaves at a multiple of answer-seconds=%g, which should "
                "be more", took_seconds, due,
            )  # fmt: skip
        time.sleep(-took_seconds % due)


def training_keys(run_config: Mapping[str, Any]) -> set[str]:
    """Return the keys of a run's settings that its devices need as well."""
    algorithm = find_algorithm(str(run_config.get("algorithm", "gs-wgan")))
    return {"seed", *ALGORITHM_KEYS, *algorithm.Settings.keys()}


def device_share(run_config: Mapping[str, Value]) -> dict[str, Value]:
    """Return those of a run's settings that are also a device's; the others are the server's."""
    Config.from_table(run_config)
    keys = training_keys(run_config)
    return {key: value for key, value in run_config.items() if key in keys}


def create_device(folder: Path, settings: DeviceSettings, policy_file: Path | None) -> None:
    """Make a device's folder with an empty ledger, once; what a cut-off call left is made anew.

    Args:
        folder: made if it is missing.
        settings: written to ``device.toml``; without a seed it gets one.
        policy_file: copied; None: a careful policy is written, for its owner to change.

    Raises:
        FileExistsError: a device, or what is left of one, is there already.
        OSError, ValueError: the policy cannot be read, is none, or refuses these settings.
    """
    if policy_file is None:
        policy = CAREFUL
        text = "".join(f"{k} = {toml_value(v)}\n" for k, v in CAREFUL.to_table().items())
    else:
        policy = read_policy(policy_file)
        text = policy_file.read_text()
    require_fit(settings, policy)
    seeded = {"seed": secrets.randbits(62)} | dict(settings.training)
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, FOLDER_MODE)
    if (folder / UNFINISHED).exists() and not has_line(folder):  # it has answered nothing
        for name in (LEDGER, HEAD, REPLIES, ROUNDS, IDENTITY, POLICY, SETTINGS):
            for path in folder.glob(f"{name}*"):
                path.unlink()
    for name in (SETTINGS, POLICY):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name}: there is a device already; it stays as it is")
    for name in (LEDGER, HEAD, REPLIES):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name}: there is a ledger already; it stays")
    write_durably(folder / UNFINISHED, b"")
    Ledger.create(folder, owners(settings))
    write_durably(folder / IDENTITY, secrets.token_bytes(KEY_BYTES))
    Sums.create(folder)
    write_durably(folder / POLICY, text.encode())
    written = settings.model_copy(update={"training": seeded})
    write_durably(folder / SETTINGS, written.to_toml().encode())
    (folder / UNFINISHED).unlink()


def require_fit(settings: DeviceSettings, policy: Policy) -> None:
    """Require that some request for what the settings release stays within the policy.

    Raises:
        ValueError: every such request would be refused, and why.
    """
    shape = settings.config().release(settings.spec)
    event = Event(
        **shape._asdict(),
        clipping_bound=policy.max_clipping_bound,
        noise_stddev=policy.min_noise_stddev,
    )
    try:
        policy.model_copy(update={"trust": (event.trust,)}).charge(event)
    except RequestExceedsPolicy as refusal:
        raise ValueError(
            f"the policy refuses every request of the device's own training settings: {refusal}; "
            "change one of them"
        ) from None


def read_settings(path: Path) -> DeviceSettings:
    """Read ``device.toml``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, or a setting is unknown, missing, of another type or out of
            range.
    """
    return DeviceSettings.from_table(read_toml(path), f"{path.name}: ")


def open_device(
    folder: Path, noise: Callable[[str, int], NoiseSource] = lambda client, number: SecureNoise()
) -> OpenDevice:
    """Read settings, policy and ledger and return the guard; no data is read.

    No file and no environment variable replaces the noise: only code that builds a guard can.

    Raises:
        OSError, ValueError: settings, policy, key or roster cannot be read.
        LedgerUnavailable: the ledger is missing, damaged, or another client's.
    """
    if (folder / UNFINISHED).exists():
        if not (folder / SETTINGS).exists():  # which init writes last
            raise ValueError(f"{folder}: its init was cut off; fed-gswgan device init again")
        (folder / UNFINISHED).unlink()
    settings, policy = read_settings(folder / SETTINGS), read_policy(folder / POLICY)
    with Ledger(folder, owners(settings)):
        pass
    users, config = (settings.name,), settings.config()
    identity = read_identity(folder)

    def read() -> ClientDataset:
        images = read_own_images(Path(settings.data), settings.class_names)
        return ClientDataset(users, images.images, images.labels)

    guard = Guard(
        folder=folder,
        owners=owners(settings),
        algorithm=config.shared.algorithm,
        client=config.algorithm.Client(config.own, settings.spec),
        policy=policy,
        noise=noise,
    )
    sums = None
    if (folder / ROSTER).exists():
        roster = read_roster(folder / ROSTER).roster(policy)
        sums = Sums(guard, Device(identity, roster))
    return OpenDevice(
        settings=settings,
        policy=policy,
        identity=identity,
        guard=guard,
        sums=sums,
        client=ClientView(settings.name, users, read, SeedStream(config.shared.seed)),
        socket=socket_path(folder, settings),
        refusals=RefusalLimit(),
    )


def read_identity(folder: Path) -> Identity:
    """Read the device's own key.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not 32 bytes.
    """
    secret = (folder / IDENTITY).read_bytes()
    if len(secret) != KEY_BYTES:
        raise ValueError(
            f"{folder / IDENTITY}: {len(secret)} bytes must be {KEY_BYTES}; put back a copy of it, "
            "or make a new device: another key is another client"
        )
    return Identity(secret)


def owners(settings: DeviceSettings) -> str:
    """Return the hash of whose ledger a device keeps."""
    return owners_hash({settings.name: (settings.name,)})


def socket_path(folder: Path, settings: DeviceSettings) -> Path:
    """Return where the guard listens."""
    path = Path(settings.socket) if settings.socket else folder.absolute() / SOCKET
    check_path(path)
    return path

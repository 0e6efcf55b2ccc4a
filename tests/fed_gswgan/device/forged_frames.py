"""What a hostile relay may write to a guard's socket: a table of named forgeries.

Each line draws its variant from the generator it is given, so that it stands for any number of
them, and names what every variant must be refused as.
"""

import json
import pickle
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fed_gswgan.device.guard_frame import MAGIC, PREFIX, Frame, pack
from fed_gswgan.wire.message_types import TRAIN, UPDATE
from tests.fed_gswgan.device.served_device import SAMPLES, train_frame

Random = np.random.Generator
MALFORMED, EXCEEDS = "MALFORMED_INPUT", "REQUEST_EXCEEDS_POLICY"


class Forgery(NamedTuple):
    """A line of the table.

    Attributes:
        refusal: the name that it must meet.
        write: returns the bytes.
    """

    refusal: str
    write: Callable[[Random], bytes]


class Touch:
    """Unpickled, this writes a file: whoever finds it was unpickling."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def raw(head: Any, body: bytes = b"", magic: bytes = MAGIC) -> bytes:
    """Return a frame with whatever head, unchecked."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return PREFIX.pack(magic, len(text), len(body)) + text + body


def _asked(random: Random, **config: Any) -> Frame:
    """Return an allowed request of a round that nobody asks for otherwise, changed."""
    changed = {name.replace("_", "-"): value for name, value in config.items()}
    return train_frame(int(random.integers(1, 2**30)), **changed)


def _config(name: str, *values: Any) -> Callable[[Random], bytes]:
    """Forge a request with one of these values of a setting."""
    return lambda random: _unchecked(
        _asked(random, **{name: values[int(random.integers(len(values)))]})
    )


def _without(random: Random) -> bytes:
    frame = _asked(random)
    config, arrays = dict(frame.config), dict(frame.arrays)
    part = config if random.random() < 0.7 else arrays
    del part[str(random.choice(sorted(part)))]
    return pack(Frame(kind=TRAIN, config=config, arrays=arrays))


def _arrays(change: Callable[[dict[str, Any], Random], Any]) -> Callable[[Random], bytes]:
    """Forge a request whose arrays, by name and for it to change, ``change`` is given."""

    def write(random: Random) -> bytes:
        frame = _asked(random)
        arrays = {name: array.copy() for name, array in frame.arrays.items()}
        change(arrays, random)
        return pack(Frame(kind=TRAIN, config=frame.config, arrays=arrays))

    return write


def _unchecked(frame: Frame) -> bytes:
    head = {
        "kind": frame.kind,
        "config": dict(frame.config),
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in frame.arrays.items()},
    }
    return raw(head, b"".join(array.tobytes() for array in frame.arrays.values()))


def _cut(random: Random) -> bytes:
    whole = pack(_asked(random))
    return whole[: int(random.integers(len(whole)))]


def _flipped(random: Random) -> bytes:
    """Flip a bit of the prefix or of JSON's own marks: a name that changes is another forgery."""
    whole = bytearray(pack(_asked(random)))
    whole[int(random.integers(PREFIX.size + 1))] ^= 1 << int(random.integers(8))
    return bytes(whole)


def _pickled(random: Random) -> bytes:
    thing = (Touch("/tmp/fed-gswgan-unpickled"), [1] * 100, _asked(random).config)
    protocol = int(random.integers(6))
    written = pickle.dumps(thing[int(random.integers(3))], protocol)
    return written if random.random() < 0.5 else raw(written)


def _pickled_body(random: Random) -> bytes:
    body = pickle.dumps(Touch("/tmp/fed-gswgan-unpickled"))
    dtype = str(random.choice(["object", "O", "|O", "V8", "S1", "U1", "M8[s]", ">f4"]))
    return raw({"kind": TRAIN, "config": {}, "arrays": {"x": [dtype, [1]]}}, body)


def _bomb(random: Random) -> bytes:
    """Compress many empty images into a kilobyte, or say so."""
    images = int(random.integers(9, 2**16))
    packed = np.frombuffer(zlib.compress(bytes(images * 784), 9), np.uint8)
    arrays = {"samples": packed, "labels": np.zeros(images, np.uint8)}
    config = dict(_asked(random, downlink_codec="uint8-deflate").config)
    return pack(Frame(kind=TRAIN, config=config, arrays=arrays))


def _resized(arrays: dict[str, Any], samples: int) -> None:
    arrays["samples"] = np.full((samples, 1, 28, 28), 0.5, np.float32)
    arrays["labels"] = np.zeros(samples, np.uint8)


def _one_pixel(arrays: dict[str, Any], random: Random) -> None:
    values = (np.nan, np.inf, -np.inf, 3e38, -1e-45, 1 + 2**-23, -1.0)
    arrays["samples"].flat[int(random.integers(arrays["samples"].size))] = values[
        int(random.integers(len(values)))
    ]


def _other_dtype(arrays: dict[str, Any], random: Random) -> None:
    name = str(random.choice(["samples", "labels"]))
    dtypes = [d for d in ("f2", "f4", "f8", "i1", "u1", "i2", "i8", "u8", "?")
              if np.dtype(d) != arrays[name].dtype]  # fmt: skip
    arrays[name] = np.zeros(arrays[name].shape, dtypes[int(random.integers(len(dtypes)))])


def _other_shape(arrays: dict[str, Any], random: Random) -> None:
    name = str(random.choice(["samples", "labels"]))
    array = arrays[name]
    shapes = ((array.size, 1), (1, *array.shape), (*array.shape, 1), (), (0,))
    arrays[name] = np.zeros(shapes[int(random.integers(len(shapes)))], array.dtype)


NOT_NUMBERS = (0.0, -0.0, -2.14, 1e-300, 1e300, 2**70, -1, True, "none", "2.14", None, [2.14], {})
# Of FedAvg-GAN, whose update carries no noise: from this device it is not to be had.
UPDATE_CONFIG = {"experiment-id": "e", "server-round": 1, "clipping-bound": 1.0}

FORGERIES: dict[str, Forgery] = {
    # No frames.
    "nothing": Forgery(MALFORMED, lambda random: b""),
    "noise": Forgery(MALFORMED, lambda random: random.bytes(int(random.integers(1, 4000)))),
    "another protocol": Forgery(
        MALFORMED,
        lambda random: [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01", b"PK\x03\x04" * 9][
            int(random.integers(3))
        ],
    ),
    "a pickle": Forgery(MALFORMED, _pickled),
    "a pickle for a body": Forgery(MALFORMED, _pickled_body),
    "half a frame": Forgery(MALFORMED, _cut),
    "a flipped bit in what frames begin with": Forgery(MALFORMED, _flipped),
    "lengths beyond memory": Forgery(
        MALFORMED,
        lambda random: PREFIX.pack(
            MAGIC, int(2 ** random.integers(17, 32)), int(2 ** random.integers(24, 64, dtype="u8"))
        ),
    ),
    "a body beyond memory": Forgery(
        MALFORMED, lambda random: PREFIX.pack(MAGIC, 2, int(2 ** int(random.integers(24, 64))))
    ),
    # Frames that are no requests.
    "a head that is none": Forgery(
        MALFORMED,
        lambda random: raw(
            [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'"x"', b"{}", b'{"kind":NaN}'][
                int(random.integers(9))
            ]
        ),
    ),
    "a head with more": Forgery(
        MALFORMED,
        lambda random: raw({"kind": TRAIN, "config": {}, "arrays": {},
                            str(random.choice(["policy", "noise", "__class__"])): {}}),
    ),
    "another kind": Forgery(
        MALFORMED,
        lambda random: raw({
            "kind": str(random.choice(["", "reply", "read.data", "train", "ledger.clear", "x" * 999,
                                       "../../ledger", "train.gswgan\0", "\ud800"])),
            "config": {}, "arrays": {}}),
    ),
    "arrays that do not fit the body": Forgery(
        MALFORMED,
        lambda random: raw({
            "kind": TRAIN, "config": {},
            "arrays": {"samples": ["float32", [int(random.integers(2, 2**31)), 1, 28, 28]]}},
            b"\0" * int(random.integers(1, 99))),
    ),
    "lengths that are none": Forgery(
        MALFORMED,
        lambda random: raw({
            "kind": TRAIN, "config": {},
            "arrays": {"samples": ["uint8", [[-1, -1], [1.5], ["1"], [2**31], [2**30] * 8, [1] * 9,
                                             [True], None, 7][int(random.integers(9))]]}}, b"\0"),
    ),
    "an update without noise": Forgery(
        EXCEEDS,
        lambda random: pack(Frame(
            kind=UPDATE, config=UPDATE_CONFIG | {"noise-stddev": float(random.uniform(3, 99))},
            arrays={name: np.zeros(4, np.float32) for name in ("generator", "critic")})),
    ),
    # Requests that no device answers.
    "a part missing": Forgery(MALFORMED, _without),
    "a setting too many": Forgery(
        MALFORMED,
        lambda random: _unchecked(_asked(random, **{str(random.choice(
            ["seed", "noise_source", "max_epsilon", "skip_clipping", "data", "path"])): 1})),
    ),
    "an array too many": Forgery(
        MALFORMED, _arrays(lambda arrays, random: arrays.update(weights=np.zeros(3)))
    ),
    "critic samples alone": Forgery(
        MALFORMED,
        _arrays(lambda a, random: a.update({"critic-samples": np.zeros((1, 1, 1, 28, 28), "f4")})),
    ),
    "noise that is none": Forgery(MALFORMED, _config("noise_stddev", *NOT_NUMBERS)),
    "clipping bounds that are none": Forgery(MALFORMED, _config("clipping_bound", *NOT_NUMBERS)),
    "clipping that is none": Forgery(
        MALFORMED, _config("clipping", "", "none", "SAMPLE", "sample\n", 1, True, None, "x" * 10**4)
    ),
    "rounds that are none": Forgery(
        MALFORMED, _config("server_round", 0, -1, 2**41, 2**64, 10**999, 1.0, True, "1", None)
    ),
    "checkpoints that are none": Forgery(
        MALFORMED, _config("checkpoint_round", -1, 2**40, 2**64, 1.0, False, "0", None)
    ),
    "names that are none": Forgery(
        MALFORMED, _config("experiment_id", "x" * 65, "a\0b", "\n", "\u202e", "\ud800", 1, None)
    ),
    "less noise": Forgery(
        EXCEEDS, lambda random: pack(_asked(random, noise_stddev=float(random.uniform(1e-6, 2.13))))
    ),
    "a larger bound": Forgery(
        EXCEEDS,
        lambda random: pack(_asked(random, clipping_bound=float(10 ** random.uniform(0.1, 29)))),
    ),
    "another codec": Forgery(
        MALFORMED,
        _config("uplink_codec", "raw", "pickle", "", 8, True, None, "float64", "uint8-deflate"),
    ),
    "another codec of the images": Forgery(
        MALFORMED, _config("downlink_codec", "raw", "", 8, None, "uint8", "uint8-deflate", "uint1")
    ),
    "frequencies that are none": Forgery(
        MALFORMED, _config("dct_frequencies", -1, 29, 2**40, 1.0, True, "8", None)
    ),
    "a bomb": Forgery(EXCEEDS, _bomb),
    "no rows": Forgery(MALFORMED, _arrays(lambda arrays, random: _resized(arrays, 0))),
    "more rows": Forgery(
        EXCEEDS, _arrays(lambda arrays, random: _resized(arrays, int(random.integers(9, 200))))
    ),
    "more critic batches": Forgery(
        EXCEEDS,
        _arrays(lambda arrays, random: arrays.update({
            "critic-samples": np.zeros((3, SAMPLES, 1, 28, 28), "f4"),
            "critic-labels": np.zeros((3, SAMPLES), "u1")})),
    ),
    "pixels that are none": Forgery(MALFORMED, _arrays(_one_pixel)),
    "labels of no class": Forgery(
        MALFORMED,
        _arrays(lambda a, random: a["labels"].__setitem__(0, int(random.integers(10, 256)))),
    ),
    "another dtype": Forgery(MALFORMED, _arrays(_other_dtype)),
    "another shape": Forgery(MALFORMED, _arrays(_other_shape)),
}  # fmt: skip

import json
import tracemalloc

import numpy as np
import pytest

from fed_gswgan.device.guard_frame import LARGEST_HEAD_BYTES, MAGIC, PREFIX, Frame, incoming, pack
from fed_gswgan.privacy.refusals import MalformedInput

LARGEST = 2**16


def read(written, largest=LARGEST):
    """Read as a peer would that gets every byte at once."""
    reader = incoming(largest)
    buffer, position = next(reader), 0
    while True:
        size = len(buffer)
        assert position + size <= len(written), "it asks for more than there is"
        buffer[:] = written[position : position + size]
        position += size
        try:
            buffer = next(reader)
        except StopIteration as end:
            assert position == len(written)
            return end.value


def written(head, body=b"", head_bytes=None, body_bytes=None, magic=MAGIC):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    head_bytes = len(text) if head_bytes is None else head_bytes
    body_bytes = len(body) if body_bytes is None else body_bytes
    return PREFIX.pack(magic, head_bytes, body_bytes) + text + body


def head_of(**changed):
    return {"kind": "train", "config": {}, "arrays": {}} | changed


def test_a_frame_comes_back_as_it_was():
    arrays = {
        "samples": np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32),
        "labels": np.arange(3, dtype=np.uint8),
        "nothing": np.empty((0, 7), np.int64),
        "one": np.array(2.5, np.float16),
        "strided": np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2],
    }
    config = {"a": True, "b": 1, "c": 1.0, "d": "\u00fc\n\ud800", "e": -(2**70), "f": 1e-300}
    frame = Frame(kind="train.gswgan", config=config, arrays=arrays)
    found = read(pack(frame))
    assert (found.kind, found.config) == (frame.kind, config)
    assert [type(value) for value in found.config.values()] == [type(v) for v in config.values()]
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "frame",
    [
        Frame(kind="k", config={"x": [1]}),
        Frame(kind="k", config={"x": b"bytes"}),
        Frame(kind="k", config={"x": float("nan")}),
        Frame(kind="k", config={"x": None}),
        Frame(kind="k", config={"x": "y" * LARGEST_HEAD_BYTES}),
        Frame(kind="k", arrays={"x": np.array(None)}),
        Frame(kind="k", arrays={"x": np.array("text")}),
        Frame(kind="k", arrays={"x": np.zeros(1, ">f4")}),
        Frame(kind="k", arrays={str(n): np.zeros(1) for n in range(17)}),
    ],
)
def test_what_is_no_number_or_word_is_not_written(frame):
    with pytest.raises(MalformedInput):
        pack(frame)


MALFORMED = {
    "another magic": written(head_of(), magic=b"HTTP"),
    "a head that is too long": written(b"", head_bytes=LARGEST_HEAD_BYTES + 1),
    "the longest head": written(b"", head_bytes=2**32 - 1),
    "a body that is too long": written(b"", head_bytes=2, body_bytes=LARGEST + 1),
    "the longest body": written(b"", head_bytes=2, body_bytes=2**64 - 1),
    "no head": written(b""),
    "no JSON": written(b"{"),
    "no text": written(b"\xff\xfe{}"),
    "no table": written([]),
    "a number": written(b"1"),
    "a deep head": written(b"[" * 60_000),
    "NaN": written(b'{"kind":"k","config":{"x":NaN},"arrays":{}}'),
    "infinity": written(b'{"kind":"k","config":{"x":-Infinity},"arrays":{}}'),
    "a number of 50,000 digits": written(
        b'{"kind":"k","config":{"x":%s},"arrays":{}}' % (b"9" * 50_000)
    ),
    "a part too few": written({"kind": "k", "config": {}}),
    "a part too many": written(head_of(policy={})),
    "a kind that is a number": written(head_of(kind=1)),
    "no kind": written(head_of(kind=None)),
    "a list of settings": written(head_of(config=[])),
    "a setting that is a list": written(head_of(config={"x": [1]})),
    "a setting that is a table": written(head_of(config={"x": {}})),
    "a setting that is nothing": written(head_of(config={"x": None})),
    "a list of arrays": written(head_of(arrays=[["f4", [1]]])),
    "an array that is a word": written(head_of(arrays={"x": "f4"})),
    "an array without a shape": written(head_of(arrays={"x": ["float32"]})),
    "objects": written(head_of(arrays={"x": ["object", [1]]}), b"\0" * 8),
    "raw memory": written(head_of(arrays={"x": ["V8", [1]]}), b"\0" * 8),
    "words": written(head_of(arrays={"x": ["<U2", [1]]}), b"\0" * 8),
    "a dtype that is a table": written(head_of(arrays={"x": [{"names": []}, [1]]})),
    "a length below 0": written(head_of(arrays={"x": ["uint8", [-1, -4]]}), b"\0" * 4),
    "a length that is a fraction": written(head_of(arrays={"x": ["uint8", [1.0]]}), b"\0"),
    "a length that is yes": written(head_of(arrays={"x": ["uint8", [True]]}), b"\0"),
    "a length beyond memory": written(head_of(arrays={"x": ["uint8", [2**31]]}), b"\0"),
    "lengths that overflow": written(head_of(arrays={"x": ["uint8", [2**30] * 8]}), b"\0"),
    "nothing times far too much": written(head_of(arrays={"x": ["uint8", [0, *[2**30] * 7]]})),
    "nine dimensions": written(head_of(arrays={"x": ["uint8", [1] * 9]}), b"\0"),
    "seventeen arrays": written(head_of(arrays={str(n): ["uint8", [0]] for n in range(17)})),
    "a body too short": written(head_of(arrays={"x": ["uint8", [5]]}), b"\0" * 4),
    "a body too long": written(head_of(arrays={"x": ["uint8", [3]]}), b"\0" * 4),
    "a body of nobody's": written(head_of(), b"\0" * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_is_refused_before_memory_is_taken_for_it(name):
    tracemalloc.start()
    try:
        with pytest.raises(MalformedInput):
            read(MALFORMED[name])
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()

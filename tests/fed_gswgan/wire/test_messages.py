"""What crosses between server and client: read strictly, hashed fully, of a length fixed before."""

import json
import math
import pickle
import struct
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fed_gswgan.privacy import refusals
from fed_gswgan.privacy.mechanism import Event, grid_step, privatize
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.privacy.refusals import MalformedInput, Refusal, RequestExceedsPolicy
from fed_gswgan.wire.encoding import BITS, FLOAT16_MAX
from fed_gswgan.wire.messages import (
    LARGEST_REFUSAL_BYTES,
    MalformedReplyError,
    Request,
    decode_release,
    encode_refusal,
    encode_release,
    named_by_request,
    release_bytes,
    release_levels,
)

EVENT = Event(rows=3, numbers=4, extra=2, clipping_bound=1.0, noise_stddev=2.14)
SHARES = replace(EVENT, trust="secure-aggregation", honest=2)
CENTRAL = replace(EVENT, trust="central")
SAMPLES = (np.arange(24, dtype=np.float32) / 24).reshape(3, 1, 2, 4)
LABELS = np.array([0, 5, -(2**40)])
REQUEST = Request(
    experiment_id="run 1",
    server_round=7,
    oldest_round=3,
    algorithm="gs-wgan",
    event=EVENT,
    tensors={"samples": SAMPLES, "labels": LABELS},
    scalars={"rate": 0.25, "steps": 3, "kind": "normal"},
    unit_range=frozenset({"samples"}),
)
HONEST = REQUEST.encode()


# -- requests


def test_experiment_and_round_are_read_without_a_tensor():
    assert named_by_request(HONEST) == ("run 1", 7)
    length = 8 + int.from_bytes(HONEST[:8], "little")
    header = json.loads(HONEST[8:length])["header"]["data_offsets"]
    assert named_by_request(HONEST[: length + header[1]]) == ("run 1", 7), "of the tensors nothing"
    assert named_by_request(b"\xff" * 8 + HONEST[8:]) == ("", 0)
    deep = b"[" * 50_000
    assert named_by_request(struct.pack("<Q", len(deep)) + deep) == ("", 0)


@given(place=st.integers(0, len(HONEST) - 1), value=st.binary(max_size=20))
def test_bytes_that_are_no_request_name_something_or_nothing(place, value):
    for blob in (value, HONEST[:place], HONEST[:place] + value + HONEST[place + len(value) :]):
        experiment_id, server_round = named_by_request(blob)
        assert (type(experiment_id), type(server_round)) == (str, int)
        assert len(experiment_id) <= 64


def assert_same(decoded, request):
    sent = {"tensors": {}, "unit_range": frozenset(), "downlink_bits": 32}
    assert replace(decoded, **sent) == replace(request, **sent)
    for name, tensor in request.tensors.items():
        assert decoded.tensors[name].dtype == tensor.dtype
        assert decoded.tensors[name].tolist() == tensor.tolist()
    assert decoded.key == request.key


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"uplink_bits": 4},
        {"event": SHARES, "modulus_bits": 20, "server_round": 2**40, "oldest_round": 2**40},
        {"tensors": {"one": np.float32(2.5).reshape(()), "none": np.zeros((0, 3), np.float32)}},
        {"tensors": {"samples": SAMPLES.transpose(3, 2, 1, 0)}},
        {"experiment_id": "x" * 64, "scalars": {"large": 2**63 - 1, "small": -5e-324, "word": ""}},
    ],
    ids=str,
)
def test_a_request_arrives_as_it_was_sent(fields):
    request = replace(REQUEST, **fields)
    assert_same(Request.decode(request.encode()), request)


@pytest.mark.parametrize("bits", [16, 8, 4, 2, 1])
def test_samples_of_few_bits_arrive_as_the_server_knows_them(bits):
    request = replace(REQUEST, downlink_bits=bits)
    arrived = Request.decode(request.encode())
    known = replace(arrived, unit_range=request.unit_range, downlink_bits=bits)
    assert known.tensors["samples"] == pytest.approx(SAMPLES, abs=0.51 / (2 ** min(bits, 8) - 1))
    assert known.tensors["labels"].tolist() == LABELS.tolist()
    assert known.encode() == request.encode()


def test_the_hash_depends_on_everything_but_bits_and_oldest_round():
    """So a resumed server, or one that sends fewer bits, repeats a release and buys none."""
    same = [{"oldest_round": 1}, {"uplink_bits": 8}, {"modulus_bits": 9}, {"downlink_bits": 8}]
    assert {replace(REQUEST, **fields).hash() for fields in same} == {REQUEST.hash()}
    samples, labels = REQUEST.tensors.values()
    nearly = samples.copy()
    nearly[2, 0, 1, 3] = np.nextafter(nearly[2, 0, 1, 3], 2)
    zero = np.zeros(1, np.float32)
    others = [
        {"experiment_id": "run 2"}, {"server_round": 8}, {"algorithm": "fedavg-gan"},
        *({"event": replace(EVENT, **change)} for change in (
            {"rows": 4}, {"numbers": 5}, {"extra": 1}, {"bounded": "message"},
            {"clipping_bound": 0.5}, {"noise_stddev": 2.15}, {"trust": "central"},
            {"trust": "secure-aggregation"}, {"trust": "secure-aggregation", "honest": 2},
        )),
        *({"scalars": scalars} for scalars in (
            {}, {"rate": 0.25, "steps": 4, "kind": "normal"}, {"rate": 0.25, "steps": 3},
            {"rate": 0.25, "steps": "3", "kind": "normal"},
        )),
        *({"tensors": tensors} for tensors in (
            {}, {"samples": samples}, {"samples": nearly, "labels": labels},
            {"samples": samples.reshape(3, 1, 4, 2), "labels": labels},
            {"samples": labels, "labels": samples}, {"samples": samples, "label": labels},
            {"samples": samples, "labels": labels.view(np.float64).astype(np.float32)},
            {"zero": zero}, {"zero": -zero}, {"zero": zero[0].reshape(())},
        )),
    ]  # fmt: skip
    hashes = {replace(REQUEST, **fields).hash() for fields in others}
    assert len(hashes | {REQUEST.hash()}) == len(others) + 1
    tensors, scalars = (dict(reversed(m.items())) for m in (REQUEST.tensors, REQUEST.scalars))
    assert replace(REQUEST, tensors=tensors, scalars=scalars).hash() == REQUEST.hash()


# -- hostile requests

GONE = object()


def written(changes=None, tensors=None):
    """Return the honest request's bytes with other tensors, and entries of its header by path."""
    found = load(HONEST)
    header = json.loads(found["header"].tobytes())
    for path, value in (changes or {}).items():
        *above, name = path.split("/")
        place = reduce(dict.__getitem__, above, header)
        place[name] = value
        if value is GONE:
            del place[name]
    found |= {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)} | (tensors or {})
    return save({name: tensor for name, tensor in found.items() if tensor is not GONE})


def header_text(text):
    return written(tensors={"header": np.frombuffer(text, np.uint8)})


def many(count):
    named = {f"tensors/t{i}": {"shape": [3]} for i in range(count)}
    return written(named, {f"tensor/t{i}": LABELS for i in range(count)})


def by_hand(*names, dtype="F32", bits=32):
    """Return a safetensors file whose samples have any dtype, even one that numpy lacks."""
    text = load(HONEST)["header"].tobytes()
    sizes = {"header": len(text), "samples": 24 * bits // 8, "labels": 24, "again": 24}
    kinds = {"header": ("U8", [len(text)]), "samples": (dtype, [3, 1, 2, 4])}
    entries, end = [], 0
    for name in ("header", *names):
        kind, shape = kinds.get(name, ("I64", [3]))
        span, end = [end, end + sizes[name]], end + sizes[name]
        key = "header" if name == "header" else f"tensor/{name}".replace("again", "labels")
        entry = json.dumps({key: {"dtype": kind, "shape": shape, "data_offsets": span}})
        entries.append(entry[1:-1])
    head = f"{{{', '.join(entries)}}}".encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + text + bytes(end - len(text))


SPOILED = [np.where(SAMPLES == 0, bad, SAMPLES).astype("f4") for bad in (np.nan, np.inf, -np.inf)]
DEEP = b"[" * 100_000
CONTROL = ("a\0b", "a\nb", "\x1b[2J", "\u202e", "é", "\x7f", "a" * 65)
COUNTS = (-1, 10**400, True, 1.5, "1", None, [1], math.nan)
NUMBERS = (0.0, -2.0, 10**400, math.nan, math.inf, True, "2", None)
SHARES_BY_HAND = {"event/trust": "secure-aggregation", "modulus_bits": 20}
VALUES = {
    "version": (*COUNTS, 1, 3, "2"),
    "server_round": (*COUNTS, 0, 2**41),
    "oldest_round": (*COUNTS, 0, 8),
    "uplink_bits": (*COUNTS, 0, 3, 33, 64, False, 8.0),
    "modulus_bits": (*COUNTS, 1, 20, 32),
    "experiment_id": (*CONTROL, 7, None, ["e"], True, GONE),
    "algorithm": (*CONTROL, 7, None, GONE),
    "skip_clipping": (True,),
    "": (1,),
    "event": (None, [], {}, "local", 7, GONE),
    "event/rows": (*COUNTS, 0, 2**27),
    "event/numbers": (*COUNTS, 0, 2**26),
    "event/extra": (*COUNTS, 2**27),
    "event/bounded": ("row", "", None, 1, True),
    "event/clipping_bound": (*NUMBERS, 1e31, 1e-31, GONE),
    "event/noise_stddev": (*NUMBERS, 1e-10, 1e10, GONE),
    "event/trust": ("paper", "secure-aggregation", "", None, 1, "local\n"),
    "event/honest": (*COUNTS, 0, 2, 2**33),
    "event/noise_source": ("seeded",),
    "scalars": (None, [], "x", 7, GONE),
    "scalars/rate": (*CONTROL, *NUMBERS[2:6], None, [1], {"a": 1}, -(10**400), 10**4000),
    **{f"scalars/{name}": (1,) for name in ("", "A", "a b", "é", "a\n", "a" * 65)},
    "tensors": (None, [], {}, "x", {"samples": [3, 1, 2, 4]}, GONE),
    "tensors/samples": (None, [3, 1, 2, 4], {"bits": 32}, GONE),
    "tensors/seeds": ({"shape": [3]},),
    "tensors/samples/dtype": ("float64",),
    "tensors/samples/bits": (*COUNTS, 0, 3, 8, 16),
    "tensors/samples/shape": (
        [], [3], [3, 1, 2, 5], [2**28, 2**28], [2**29], [-3, 1, -2, 4], [True, 3, 2, 4],
        [3.0, 1, 2, 4], ["3", 1, 2, 4], None, 24, [1] * 100, [10**400], [0, 2**28],
    ),
}  # fmt: skip
DTYPES = {
    "F64": 64, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F4": 4, "I32": 32, "I16": 16,
    "I8": 8, "U8": 8, "U16": 16, "U32": 32, "U64": 64, "BOOL": 8, "C64": 64, "X9": 8,
}  # fmt: skip
HOSTILE = {
    # garbage, truncated, not bytes
    "nothing": b"", "one byte": b"\0", "zeros": bytes(4096), "text": b"GET / HTTP/1.1\r\n\r\n",
    "random": np.random.default_rng(0).bytes(4096), "a pickle": pickle.dumps(REQUEST.scalars),
    "a string": HONEST.decode("latin1"), "a bytearray": bytearray(HONEST), "None": None,
    "a table without end": b"\xff" * 8 + HONEST[8:], "a long table": b"\xff" * 7 + HONEST[7:],
    "truncated": HONEST[:-1], "half": HONEST[: len(HONEST) // 2], "and more": HONEST + b"\0",
    # the header as text
    "no tensor": save({}), "no header": written(tensors={"header": GONE}),
    "a header of floats": written(tensors={"header": np.zeros(9, np.float32)}),
    **{
        f"header {text[:12]}": header_text(text)
        for text in (b"", b"\xff{}", b'{"a":', b"[]", b"null", b"2", DEEP, b'{"version":' + DEEP)
    },
    # an entry that is missing, unknown, of another type or out of range
    **{
        f"{path}={value!r:.20}": written({path: value})
        for path, values in VALUES.items()
        for value in values
    },
    # what does not go together
    "central with few bits": written({"event/trust": "central", "uplink_bits": 8}),
    "shares with few bits": written(SHARES_BY_HAND | {"uplink_bits": 8}),
    "shares too small for a grid": written(SHARES_BY_HAND | {"event/noise_stddev": 2e-9}),
    "more than float16 holds": written({"event/noise_stddev": 0.01, "uplink_bits": 16}),
    "levels that span the noise": written({"event/noise_stddev": 0.5, "uplink_bits": 4}),
    # tensors
    **{kind: by_hand("samples", "labels", dtype=kind, bits=bits) for kind, bits in DTYPES.items()},
    **{f"number {i}": written(tensors={"tensor/samples": bad}) for i, bad in enumerate(SPOILED)},
    **{
        f"half {i}": written(tensors={"tensor/samples": bad.astype("f2")})
        for i, bad in enumerate(SPOILED)
    },
    "another shape": written(tensors={"tensor/samples": SAMPLES[:2]}),
    "a missing tensor": written(tensors={"tensor/labels": GONE}),
    "duplicates": by_hand("samples", "labels", "again"),
    "an unknown tensor": written(tensors={"tensor/seeds": LABELS}),
    "another name": written(tensors={"x": LABELS}),
    "many tensors": many(63),
    "a tensor A": written({"tensors/A": {"shape": [3]}}, {"tensor/A": LABELS}),
    "a bomb": written(
        {"tensors/samples": {"shape": [2**28], "bits": 1}},
        {"tensor/samples": np.frombuffer(zlib.compress(bytes(2**20)), np.uint8)},
    ),
}  # fmt: skip


def test_what_the_hostile_requests_are_made_of_is_honest():
    for blob in (written(), by_hand("samples", "labels"), written(SHARES_BY_HAND), many(62)):
        assert Request.decode(blob, len(blob)).server_round == 7
        with pytest.raises(MalformedInput, match=f"at most {len(blob) - 1}"):
            Request.decode(blob, len(blob) - 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_malformed(name):
    with pytest.raises(MalformedInput) as found:
        Request.decode(HOSTILE[name])
    assert type(found.value) is MalformedInput
    assert found.value.limit


def decoded_or_refused(blob):
    try:
        request = Request.decode(blob)
    except MalformedInput:
        return
    assert all(np.isfinite(tensor).all() for tensor in request.tensors.values())
    assert request.key
    assert release_bytes(request) > 1


PLACE = st.integers(0, len(HONEST) - 1)


@given(
    st.lists(st.tuples(PLACE, PLACE, st.binary(max_size=9)), min_size=1, max_size=4),
    st.binary(min_size=1, max_size=300),
)
@settings(deadline=None, max_examples=400)
def test_random_bytes_and_changes_raise_nothing_else(changes, garbage):
    """Bytes are replaced, inserted or cut, anywhere in table, header and tensors."""
    decoded_or_refused(garbage)
    decoded_or_refused(header_text(garbage))
    for blob in (HONEST, replace(REQUEST, downlink_bits=4).encode()):
        for place, length, content in changes:
            end = place + (len(content), length % 20, 0)[length % 3]
            blob = blob[:place] + content + blob[end:]
        decoded_or_refused(blob)


# -- releases

RELEASES = {f"{bits} bits": replace(REQUEST, uplink_bits=bits) for bits in BITS}
RELEASES["central"] = replace(REQUEST, event=CENTRAL)
for modulus in (1, 13, 31):
    RELEASES[f"modulo {modulus}"] = replace(REQUEST, event=SHARES, modulus_bits=modulus)
EACH_RELEASE = pytest.mark.parametrize("request_", RELEASES.values(), ids=RELEASES)


def release_of(request, seed=0):
    randomness = np.random.default_rng(seed)
    rows, extra = randomness.standard_normal((3, 4)), randomness.standard_normal(2)
    return privatize(rows, extra, request.event, SeededNoise(randomness))


@EACH_RELEASE
def test_releases_decode_to_whole_steps_whose_sums_are_exact(request_):
    sent = [release_of(request_, seed) for seed in range(50)]
    found = [decode_release(encode_release(steps, request_), request_) for steps in sent]
    total = sum(found)
    assert {f.dtype for f in found} == {np.dtype(np.int64)}
    assert total.shape == (EVENT.size,)
    bits, levels = request_.uplink_bits, release_levels(request_)
    if request_.modulus_bits:
        assert ((total - sum(sent)) % 2**request_.modulus_bits == 0).all()
        assert min(f.min() for f in found) >= 0
    elif bits == 32:
        assert total.tolist() == sum(sent).tolist()
    elif bits == 16:  # of some 5000 steps, every fourth
        assert 0 < np.abs(np.array(found) - sent).max() <= 2
    else:
        expected = [levels.value(levels.index(steps)) for steps in sent]
        assert total.tolist() == sum(expected).tolist()
        assert (total % levels.half_gap == 0).all()


@EACH_RELEASE
def test_the_length_of_a_release_follows_from_the_request(request_):
    bits = request_.modulus_bits or request_.uplink_bits
    assert release_bytes(request_) == 1 + math.ceil(14 * bits / 8)
    for steps in (release_of(request_), np.zeros(14, int), np.full(14, -(2**31))):
        assert len(encode_release(steps, request_)) == release_bytes(request_)


@EACH_RELEASE
def test_a_release_of_another_length_or_kind_is_malformed(request_):
    blob = encode_release(np.zeros(14, np.int64), request_)
    others = (bytearray(blob), None, 7, "x", [blob], HONEST)
    for bad in (b"", blob[:-1], blob + b"\0", b"\x02" + blob[1:], *others):
        with pytest.raises(MalformedReplyError):
            decode_release(bad, request_)


def test_float16_clamps_what_it_cannot_hold_and_must_be_a_number():
    request = replace(REQUEST, uplink_bits=16)
    steps = np.array([2**31 - 1, -(2**31), 65504, 2048, 2049, 0, -1] * 2)
    found = decode_release(encode_release(steps, request), request)
    assert found[:7].tolist() == [FLOAT16_MAX, -FLOAT16_MAX, 65504, 2048, 2048, 0, -1]
    for bad in (math.nan, math.inf, -math.inf):
        halves = np.append(np.zeros(13), bad).astype("<f2")
        with pytest.raises(MalformedReplyError, match="not finite"):
            decode_release(b"\0" + halves.tobytes(), request)


@pytest.mark.parametrize("bounded", ["sample", "message"])
@pytest.mark.parametrize("extra", [0, 2])
def test_a_longer_update_than_the_bound_is_refused_under_central_trust(bounded, extra):
    event = replace(CENTRAL, bounded=bounded, extra=extra, clipping_bound=0.7)
    request = replace(REQUEST, event=event)
    huge = np.full((3, 4), 1e9), np.full(extra, -1e9)
    longest = privatize(*huge, event, SeededNoise(np.random.default_rng(0)))
    assert decode_release(encode_release(longest, request), request).tolist() == longest.tolist()
    for place in (0, event.size - 1):  # of a row, and of the extra numbers
        longer = longest.copy()
        longer[place] += math.copysign(0.01 / grid_step(event), longer[place])
        with pytest.raises(MalformedReplyError, match=r"must be <= clipping-bound=0.7"):
            decode_release(encode_release(longer, request), request)


# -- refusals

KINDS = [
    kind for kind in vars(refusals).values() if isinstance(kind, type) and issubclass(kind, Refusal)
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_carries_only_its_code_and_limit(kind):
    blob = encode_refusal(kind("user a has spent 3.2 of 10", "max-epsilon=10"))
    assert json.loads(blob[1:]) == {"code": kind.code, "limit": "max-epsilon=10"}
    with pytest.raises(Refusal) as found:
        decode_release(blob, REQUEST)
    wanted = refusals.BudgetExhausted if kind is refusals.LedgerUnavailable else kind
    assert (type(found.value), found.value.limit) == (wanted, "max-epsilon=10")
    # Without a limit the server learns none, but of what is malformed, its own request.
    limit = json.loads(encode_refusal(kind("detail"))[1:])["limit"]
    assert limit == ("detail" if issubclass(kind, MalformedInput) else "")


def test_a_long_limit_and_a_later_code_arrive_as_refusals():
    blob = encode_refusal(RequestExceedsPolicy("\U0001f600" * 5000))
    assert len(blob) <= LARGEST_REFUSAL_BYTES
    with pytest.raises(RequestExceedsPolicy):
        decode_release(blob, REQUEST)
    with pytest.raises(Refusal) as found:
        decode_release(b'\x01{"code": 1999, "limit": "x=1"}', REQUEST)
    assert (type(found.value), found.value.limit) == (Refusal, "x=1")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff\xfe", b"null", b"[]", b'"x"', b"{}", b'{"code": 1001}', b'{"limit": "x"}',
        b'{"code": 1e400, "limit": ""}', b'{"code": Infinity, "limit": ""}',
        b'{"code": NaN, "limit": ""}', b'{"code": -1, "limit": ""}', b'{"code": true, "limit": ""}',
        b'{"code": "1001", "limit": ""}', b'{"code": ' + b"9" * 900 + b', "limit": ""}',
        b'{"code": 1001, "limit": null}', b'{"code": 1001, "limit": "", "spent": 3}',
        b"[" * 1000, b'{"code":' * 500, b'{"code": 1001, "limit": "' + b"x" * 201 + b'"}',
        b'{"code": 1001, "limit": ""}' + b" " * LARGEST_REFUSAL_BYTES,
    ],
)  # fmt: skip
def test_a_hostile_refusal_is_malformed_and_stops_no_round(text):
    with pytest.raises(MalformedReplyError, match="refusal that cannot be read"):
        decode_release(b"\x01" + text, REQUEST)


@given(st.binary(max_size=60), st.sampled_from(list(RELEASES.values())))
@settings(deadline=None)
def test_random_replies_raise_nothing_else(blob, request_):
    for bad in (blob, b"\x01" + blob, b"\x00" + blob):
        with suppress(MalformedReplyError, Refusal):
            assert decode_release(bad, request_).shape == (14,)

import io
import pickle

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from fed_gswgan.privacy.events import SanitizedGradientEvent, largest_reply_norm, largest_row_norm
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.privacy.sanitizer import SanitizedGradient, sanitize
from fed_gswgan.wire.byte_meter import payload_bytes
from fed_gswgan.wire.messages import MalformedReplyError, TrainReply, TrainRequest
from fed_gswgan.wire.number_format import BITS
from fed_gswgan.wire.record_codec import decode_reply, decode_request, encode_reply, encode_request

CODECS = ("float32", "float16", "uint8")
# A bound of 2 and noise of 1.5: gradients are public to lie within 2 (1 + 6 x 1.5) = 20.
SANITIZER = {"clipping": "sample", "clipping_bound": 2.0, "noise_stddev": 1.5}
WRITTEN = {"dct_frequencies": 0, "uplink_codec": "float16"}
LIMIT = 20.0
SHAPE = (2, 1, 28, 28)
PIXEL_ERROR = {"float32": 0, "float16": 2**-12, "uint8": 0.5 / 255 + 1e-7}
GRADIENT_ERROR = {"float32": 0, "float16": 2**-7, "uint8": LIMIT / 255 + 1e-6}


def request_of(critic_batches=0, rows=2):
    randomness = np.random.default_rng(0)
    return TrainRequest(
        experiment_id="0123abcd",
        server_round=3,
        checkpoint_round=2,
        samples_BCHW=randomness.random((rows, 1, 28, 28), dtype=np.float32),
        labels_B=np.arange(60, 60 + rows),
        critic_samples_NBCHW=randomness.random((critic_batches, rows, 1, 28, 28), dtype=np.float32),
        critic_labels_NB=np.arange(critic_batches * rows).reshape(critic_batches, rows),
        **SANITIZER,
        **WRITTEN,
    )


def event_of(samples=2):
    return SanitizedGradientEvent(samples=samples, **SANITIZER)


def reply_of(gradient=None, server_round=3, rows=2):
    if gradient is None:
        gradient = np.random.default_rng(1).normal(0, 3, (rows, 1, 28, 28))
    event = event_of(len(gradient))
    gradient = SanitizedGradient(values_BCHW=gradient.astype(np.float32), event=event)
    return TrainReply(server_round=server_round, gradient=gradient)


def decoded(records, name, rows=2):
    return decode_reply(records, 3, event_of(rows), (rows, *SHAPE[1:]), name)


def extreme_in(rows, value):
    """Zeros but for one number, so that no norm is longer than an honest one."""
    values = np.zeros((rows, 1, 28, 28), np.float32)
    values[0, 0, 0, 0] = value
    return values


def over_the_wire(records):
    """Flower's own way: to bytes and back."""
    data = recorddict_to_proto(records).SerializeToString()
    return recorddict_from_proto(RecordDictProto.FromString(data))


@pytest.mark.parametrize("critic_batches", [0, 3])
@pytest.mark.parametrize("name", CODECS)
def test_a_request_survives_the_wire(name, critic_batches):
    sent = request_of(critic_batches)
    got = decode_request(over_the_wire(encode_request(sent, name)))
    for field in ("experiment_id", "server_round", "checkpoint_round", *SANITIZER, *WRITTEN):
        assert getattr(got, field) == getattr(sent, field)
    for field in ("labels_B", "critic_labels_NB"):
        assert getattr(got, field).dtype == np.int64
        assert np.array_equal(getattr(got, field), getattr(sent, field))
    for field in ("samples_BCHW", "critic_samples_NBCHW"):
        values, expected = getattr(got, field), getattr(sent, field)
        assert (values.dtype, values.shape) == (np.float32, expected.shape)
        assert np.abs(values - expected).max(initial=0) <= PIXEL_ERROR[name]
        assert values.min(initial=0) >= 0
        assert values.max(initial=0) <= 1


@pytest.mark.parametrize("name", CODECS)
def test_a_reply_survives_the_wire(name):
    sent = reply_of()
    got = decoded(over_the_wire(encode_reply(sent, name)), name, rows=2)
    assert got.server_round == 3
    assert (got.gradient.values_BCHW.dtype, got.gradient.values_BCHW.shape) == (
        np.float32,
        (2, 1, 28, 28),
    )
    assert (
        np.abs(got.gradient.values_BCHW - sent.gradient.values_BCHW).max() <= GRADIENT_ERROR[name]
    )


def test_an_8_bit_gradient_is_clamped_to_the_range_that_the_settings_make_public():
    name = "uint8"
    extremes = extreme_in(1, 1e6)
    extremes[0, 0, 0, 1] = -1e6
    records = encode_reply(reply_of(extremes), name)
    got = decoded(records, name, rows=1).gradient.values_BCHW
    assert (got.max(), got.min()) == (LIMIT, -LIMIT)


@pytest.mark.parametrize("name", CODECS)
def test_a_gradient_beyond_the_public_range_arrives_at_its_end_and_is_accepted(name):
    records = encode_reply(reply_of(extreme_in(1, 1e6)), name)
    got = decoded(over_the_wire(records), name, rows=1).gradient.values_BCHW
    assert got.max() == pytest.approx(LIMIT, rel=2**-11)


def test_a_reply_that_was_not_clamped_to_the_public_range_is_refused():
    name = "float32"
    for value, refused in ((LIMIT, False), (LIMIT * 1.01, True), (-LIMIT * 1.01, True)):
        records = encode_reply(reply_of(), name)
        records["arrays"]["sanitized-gradient"] = Array(extreme_in(2, value))
        if refused:
            with pytest.raises(MalformedReplyError, match=r"within \+-20"):
                decoded(records, name, rows=2)
        else:
            decoded(records, name, rows=2)


@pytest.mark.parametrize("name", CODECS)
def test_a_reply_longer_than_clipping_noise_and_rounding_make_an_honest_one_is_refused(name):
    event = event_of(4)
    values = sanitize(
        np.ones((4, 1, 28, 28)), event, SeededNoise(np.random.default_rng(2))
    ).values_BCHW
    decoded(encode_reply(reply_of(values), name), name, rows=4)

    row = values.copy()
    row[2] *= 1.05 * largest_row_norm(event, 784) / np.linalg.norm(row[2])
    with pytest.raises(MalformedReplyError, match="a row of norm"):
        decoded(encode_reply(reply_of(row), name), name, rows=4)

    norms = np.linalg.norm(values.reshape(4, -1), axis=1).reshape(4, 1, 1, 1)
    rows = values / norms * (1.05 * largest_reply_norm(event, 784) / 2)
    with pytest.raises(MalformedReplyError, match="has norm"):
        decoded(encode_reply(reply_of(rows), name), name, rows=4)


def test_a_reply_of_megabytes_is_refused_before_it_is_read():
    records = encode_reply(reply_of(), "float32")
    records["arrays"]["more"] = Array("float32", (1,), "numpy.ndarray", bytes(10**6))
    with pytest.raises(MalformedReplyError, match=r"arrays of 1\d{6} bytes must be <="):
        decoded(records, "float32")


def test_both_directions_have_a_codec_of_their_own():
    request = encode_request(request_of(), "uint8")
    assert request["arrays"]["samples"].dtype == "uint8"
    codec = decode_request(request).uplink_codec
    assert encode_reply(reply_of(), codec)["arrays"]["sanitized-gradient"].dtype == "float16"


def test_keys_on_the_wire_are_the_fields_in_kebab_case():
    name = "float32"
    request = encode_request(request_of(critic_batches=1), name)
    assert set(request) == {"arrays", "config"}
    assert set(request["arrays"]) == {"samples", "labels", "critic-samples", "critic-labels"}
    sanitizer = {"clipping", "clipping-bound", "noise-stddev"}
    who = {"experiment-id", "server-round", "checkpoint-round"}
    written = {"dct-frequencies", "downlink-codec", "uplink-codec"}
    assert set(request["config"]) == who | sanitizer | written
    reply = encode_reply(reply_of(), name)
    assert set(reply) == {"arrays", "config"}
    assert set(reply["arrays"]) == {"sanitized-gradient"}
    assert set(reply["config"]) == {"server-round"}


def test_a_request_without_critic_samples_sends_none():
    assert set(encode_request(request_of(), "float32")["arrays"]) == {"samples", "labels"}


@pytest.mark.parametrize("name", CODECS)
def test_the_size_of_a_reply_does_not_depend_on_its_values(name):
    values = (np.zeros, np.ones, lambda shape: np.full(shape, 1e30), lambda s: np.full(s, -1e-30))
    sizes = {payload_bytes(encode_reply(reply_of(of((2, 1, 28, 28))), name)) for of in values}
    assert len(sizes) == 1


def test_fewer_bits_make_a_smaller_payload():
    names = ("uint8", "float16", "float32")
    small, medium, large = (payload_bytes(encode_request(request_of(), n)) for n in names)
    assert small < medium < large
    small, medium, large = (payload_bytes(encode_reply(reply_of(), n)) for n in names)
    assert (medium - small, large - small) == (2 * 784, 3 * 2 * 784)


# What a peer could have got wrong: each takes well-formed records and spoils one thing.


def without(kind, key):
    def spoil(records):
        del records[kind][key]
        return records

    return spoil


def with_config(key, value):
    def spoil(records):
        records["config"][key] = value
        return records

    return spoil


def with_array(key, values):
    def spoil(records):
        records["arrays"][key] = Array(values)
        return records

    return spoil


def with_data(key, data, stype="numpy.ndarray"):
    def spoil(records):
        records["arrays"][key] = Array("float32", (2, 1, 28, 28), stype, data)
        return records

    return spoil


def with_record(key, record):
    def spoil(records):
        records[key] = record
        return records

    return spoil


def without_record(key):
    def spoil(records):
        del records[key]
        return records

    return spoil


def only(record):
    return lambda records: RecordDict({"arrays": records["arrays"], "config": record})


def archive():
    file = io.BytesIO()
    np.savez(file, gradient=np.zeros(3))
    return file.getvalue()


def npy(header):
    """A NumPy file of a header that promises what does not follow."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


METRICS = MetricRecord({"loss": 0.5})
FLOATS = np.zeros((2, 1, 28, 28), dtype=np.float32)
UNREADABLE = {
    "no bytes": b"",
    "a torn header": b"\x93NUMPY\x01",
    "text": b"hello there",
    "half a zip": b"PK\x03\x04abcdefgh",
    "an archive": archive(),
    "torn values": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }") + b"123",
    "more than any memory": npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }"
    ),
    "more than any integer": npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000000000000,), }"
    ),
    "an unfinished shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': ("),
    "a pickle": pickle.dumps([1.0]),
}

MALFORMED_REQUESTS = {
    "no samples": (without("arrays", "samples"), "samples"),
    "no labels": (without("arrays", "labels"), "labels"),
    "no critic labels": (without("arrays", "critic-labels"), "critic-labels must come together"),
    "no critic samples": (without("arrays", "critic-samples"), "critic-labels must come together"),
    "an extra array": (with_array("weights", FLOATS), r"fields \['weights'\] are not a request's"),
    "an extra setting": (with_config("epochs", 3), r"fields \['epochs'\] are not a request's"),
    "no experiment id": (without("config", "experiment-id"), "experiment-id"),
    "no round": (without("config", "server-round"), "server-round"),
    "no checkpoint round": (without("config", "checkpoint-round"), "checkpoint-round"),
    "a round in words": (with_config("server-round", "3"), "server-round is a str, must be int"),
    "half a round": (with_config("server-round", 3.0), "server-round is a float"),
    "a round that is a bool": (with_config("server-round", True), "server-round is a bool"),
    "a checkpoint in words": (with_config("checkpoint-round", "2"), "checkpoint-round is a str"),
    "a numbered experiment": (with_config("experiment-id", 7), "experiment-id is a int"),
    "samples in float64": (
        with_array("samples", FLOATS.astype(np.float64)),
        "samples has dtype float64, must be float32",
    ),
    "samples of big-endian numbers": (
        with_array("samples", FLOATS.astype(">f4")),
        "samples has dtype >f4",
    ),
    "critic samples in bytes": (
        with_array("critic-samples", np.zeros((1, 2, 1, 28, 28), dtype=np.uint8)),
        "critic-samples has dtype uint8",
    ),
    "labels in int64": (with_array("labels", np.arange(2)), "labels has dtype int64"),
    "critic labels in float32": (
        with_array("critic-labels", FLOATS),
        "critic-labels has dtype float32",
    ),
    "an extra record": (with_record("metrics", METRICS), "metrics"),
    "no config": (without_record("config"), "arrays"),
    "no arrays": (without_record("arrays"), "config"),
    "arrays that are metrics": (with_record("arrays", METRICS), "arrays must be an ArrayRecord"),
    "config that is metrics": (only(METRICS), "config a ConfigRecord"),
    "another way to write arrays": (
        with_data("samples", b"1234", stype="torch.Tensor"),
        "samples cannot be read",
    ),
}  # fmt: skip

MALFORMED_REPLIES = {
    "too few rows": (with_array("sanitized-gradient", FLOATS[:1]), r"shape \(1, 1, 28, 28\)"),
    "too many rows": (
        with_array("sanitized-gradient", np.concatenate([FLOATS, FLOATS])),
        r"sanitized-gradient has shape \(4, 1, 28, 28\), must be \(2, 1, 28, 28\)",
    ),
    "flat rows": (
        with_array("sanitized-gradient", FLOATS.reshape(2, 784)),
        "sanitized-gradient has shape",
    ),
    "float64": (
        with_array("sanitized-gradient", FLOATS.astype(np.float64)),
        "sanitized-gradient has dtype float64, must be float32",
    ),
    "bytes": (
        with_array("sanitized-gradient", FLOATS.astype(np.uint8)),
        "sanitized-gradient has dtype uint8",
    ),
    "not a number": (with_array("sanitized-gradient", FLOATS + np.nan), "must be finite"),
    "infinity": (with_array("sanitized-gradient", FLOATS + np.inf), "must be finite"),
    "another round": (with_config("server-round", 4), "server-round=4 must be 3"),
    "a round in words": (with_config("server-round", "3"), "server-round is a str"),
    "a round that is a bool": (with_config("server-round", True), "server-round is a bool"),
    "no round": (without("config", "server-round"), "are not a reply's"),
    "no gradient": (without("arrays", "sanitized-gradient"), "are not a reply's"),
    "a metric record": (with_record("metrics", METRICS), "metrics"),
    "a second config": (with_record("notes", ConfigRecord({"images": 12})), "notes"),
    "an extra array": (with_array("critic-weights", FLOATS), "critic-weights"),
    "an extra setting": (with_config("images", 12), "images"),
    "no config": (without_record("config"), "arrays"),
    "no arrays": (without_record("arrays"), "config"),
    "config that is metrics": (only(METRICS), "config a ConfigRecord"),
    "arrays that are config": (with_record("arrays", ConfigRecord({"server-round": 3})), "arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED_REQUESTS)
def test_a_malformed_request_is_refused_by_the_name_of_its_field(case):
    spoil, text = MALFORMED_REQUESTS[case]
    name = "float32"
    records = spoil(encode_request(request_of(critic_batches=1), name))
    with pytest.raises(MalformedInput, match=text):
        decode_request(over_the_wire(records))


@pytest.mark.parametrize("case", MALFORMED_REPLIES)
def test_a_malformed_reply_is_refused_by_the_name_of_its_field(case):
    spoil, text = MALFORMED_REPLIES[case]
    name = "float32"
    records = spoil(encode_reply(reply_of(), name))
    with pytest.raises(MalformedReplyError, match=text):
        decoded(over_the_wire(records), name, rows=2)


@pytest.mark.parametrize("case", UNREADABLE)
def test_bytes_that_are_no_array_are_refused_by_the_name_of_their_field(case):
    name = "float32"
    reply = with_data("sanitized-gradient", UNREADABLE[case])(encode_reply(reply_of(), name))
    with pytest.raises(MalformedReplyError, match="sanitized-gradient"):
        decoded(over_the_wire(reply), name, rows=2)
    request = with_data("samples", UNREADABLE[case])(encode_request(request_of(), name))
    with pytest.raises(MalformedInput, match="samples"):
        decode_request(over_the_wire(request))


class Trap:
    """Says so when somebody unpickles it."""

    sprung = False

    def __reduce__(self):
        return Trap.spring, ()

    @staticmethod
    def spring():
        Trap.sprung = True
        return Trap()


def object_array():
    file = io.BytesIO()
    np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("data", [pickle.dumps(Trap()), object_array()], ids=["pickle", "objects"])
def test_nothing_is_ever_unpickled(data):
    name = "float32"
    reply = with_data("sanitized-gradient", data)(encode_reply(reply_of(), name))
    with pytest.raises(MalformedReplyError, match="sanitized-gradient cannot be read"):
        decoded(over_the_wire(reply), name, rows=2)
    request = with_data("samples", data)(encode_request(request_of(), name))
    with pytest.raises(MalformedInput, match="samples cannot be read"):
        decode_request(over_the_wire(request))
    assert not Trap.sprung
    np.load(io.BytesIO(object_array()), allow_pickle=True)
    assert Trap.sprung  # the trap would have worked
    Trap.sprung = False


def test_a_float16_reply_that_overflowed_is_refused():
    name = "float16"
    records = with_array("sanitized-gradient", np.full((2, 1, 28, 28), np.inf, dtype=np.float16))
    with pytest.raises(MalformedReplyError, match="must be finite"):
        decoded(records(encode_reply(reply_of(), name)), name)


@pytest.mark.parametrize("name", ["uint8-deflate", "uint4-deflate"])
@pytest.mark.parametrize("critic_batches", [0, 3])
def test_compressed_images_arrive_as_their_levels_and_white_as_white(name, critic_batches):
    sent = request_of(critic_batches)
    sent.samples_BCHW[0] = 0.0
    records = over_the_wire(encode_request(sent, name))
    got = decode_request(records)
    error = {"uint8-deflate": 0.5 / 255, "uint4-deflate": 0.5 / 15}[name] + 1e-6
    for field in ("samples_BCHW", "critic_samples_NBCHW"):
        assert getattr(got, field).shape == getattr(sent, field).shape
        assert np.abs(getattr(got, field) - getattr(sent, field)).max(initial=0) <= error
    assert not got.samples_BCHW[0].any()


def test_compressed_samples_that_are_not_as_many_as_their_labels_are_refused():
    records = encode_request(request_of(rows=2), "uint8-deflate")
    records["arrays"]["labels"] = Array(np.zeros(3, np.uint8))
    with pytest.raises(MalformedInput, match=r"samples holds not the 2352 bytes"):
        decode_request(records)
    records["arrays"]["labels"] = Array(np.zeros(2**16 + 1, np.uint8))
    with pytest.raises(MalformedInput, match=r"samples holds 65537 images, must be <= 65536"):
        decode_request(records)


def test_an_unknown_codec_of_the_images_is_refused_by_name():
    records = encode_request(request_of(), "float32")
    records["config"]["downlink-codec"] = "pickle"
    with pytest.raises(MalformedInput, match="downlink-codec='pickle' must be one of float32"):
        decode_request(records)


@pytest.mark.parametrize("name", ["uint4", "uint2", "uint1"])
def test_a_reply_of_few_bits_takes_those_bits_and_its_mean_is_the_gradient(name):
    """40,000 noisy readings of each signal: the mean is within four standard errors."""
    signals = np.array([0.0, 0.1, -0.3])  # of C = 2; noise 3 on each coordinate
    rows = 40_000
    noise = np.random.default_rng(0).standard_normal((rows, 1, 1, 3)) * 3
    event = event_of(rows)
    gradient = SanitizedGradient(values_BCHW=(noise + signals).astype(np.float32), event=event)
    records = encode_reply(TrainReply(server_round=3, gradient=gradient), name)
    assert records["arrays"]["sanitized-gradient"].shape == (rows, (3 * BITS[name] + 7) // 8)
    got = decode_reply(records, 3, event, (rows, 1, 1, 3), name).gradient.values_BCHW
    kept = {"uint4": 0.98, "uint2": 0.86, "uint1": 0.62}[name]  # of the information
    for column, signal in enumerate(signals):
        values = got[:, 0, 0, column]
        assert values.mean() == pytest.approx(signal, abs=4 * 3 / np.sqrt(kept * rows))
        assert 9 / values.var() > kept

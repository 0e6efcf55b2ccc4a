import io
import pickle

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from fed_gswgan.config import CodecConfig
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.privacy.sanitizer import SanitizedGradient
from fed_gswgan.wire.byte_meter import payload_bytes
from fed_gswgan.wire.codec import Codec
from fed_gswgan.wire.messages import MalformedReplyError, TrainReply, TrainRequest

CODECS = ("float32", "float16", "uint8")
# A bound of 2 and noise of 1.5: gradients are public to lie within 2 (1 + 6 x 1.5) = 20.
SANITIZER = {"clipping": "sample", "clipping_bound": 2.0, "noise_stddev": 1.5}
LIMIT = 20.0
PIXEL_ERROR = {"float32": 0, "float16": 2**-12, "uint8": 0.5 / 255 + 1e-7}
GRADIENT_ERROR = {"float32": 0, "float16": 2**-7, "uint8": LIMIT / 255 + 1e-6}


def codec_of(name):
    return Codec(CodecConfig(downlink_codec=name, uplink_codec=name))


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
    )


def event_of(samples=2):
    return SanitizedGradientEvent(samples=samples, **SANITIZER)


def reply_of(gradient=None, server_round=3, rows=2):
    if gradient is None:
        gradient = np.random.default_rng(1).uniform(-LIMIT, LIMIT, (rows, 1, 28, 28))
    event = event_of(len(gradient))
    gradient = SanitizedGradient(values_BCHW=gradient.astype(np.float32), event=event)
    return TrainReply(server_round=server_round, gradient=gradient)


def over_the_wire(records):
    """Flower's own way: to bytes and back."""
    data = recorddict_to_proto(records).SerializeToString()
    return recorddict_from_proto(RecordDictProto.FromString(data))


@pytest.mark.parametrize("critic_batches", [0, 3])
@pytest.mark.parametrize("name", CODECS)
def test_a_request_survives_the_wire(name, critic_batches):
    codec, sent = codec_of(name), request_of(critic_batches)
    got = codec.decode_request(over_the_wire(codec.encode_request(sent)))
    for field in ("experiment_id", "server_round", "checkpoint_round", *SANITIZER):
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
    codec, sent = codec_of(name), reply_of()
    got = codec.decode_reply(over_the_wire(codec.encode_reply(sent)), 3, event_of(2))
    assert got.server_round == 3
    assert (got.gradient.values_BCHW.dtype, got.gradient.values_BCHW.shape) == (
        np.float32,
        (2, 1, 28, 28),
    )
    assert (
        np.abs(got.gradient.values_BCHW - sent.gradient.values_BCHW).max() <= GRADIENT_ERROR[name]
    )


def test_an_8_bit_gradient_is_clamped_to_the_range_that_the_settings_make_public():
    codec = codec_of("uint8")
    extremes = np.full((1, 1, 28, 28), 1e6)
    extremes[..., 0] = -1e6
    records = codec.encode_reply(reply_of(extremes))
    got = codec.decode_reply(records, 3, event_of(1)).gradient.values_BCHW
    assert set(np.unique(got)) == {-LIMIT, LIMIT}


@pytest.mark.parametrize("name", CODECS)
def test_a_gradient_beyond_the_public_range_arrives_at_its_end_and_is_accepted(name):
    codec = codec_of(name)
    records = codec.encode_reply(reply_of(np.full((1, 1, 28, 28), 1e6)))
    got = codec.decode_reply(over_the_wire(records), 3, event_of(1)).gradient.values_BCHW
    assert np.allclose(got, LIMIT, rtol=2**-11)


def test_a_reply_that_was_not_clamped_to_the_public_range_is_refused():
    codec = codec_of("float32")
    for value, refused in ((LIMIT, False), (LIMIT * 1.01, True), (-LIMIT * 1.01, True)):
        records = codec.encode_reply(reply_of())
        records["arrays"]["sanitized-gradient"] = Array(np.full((2, 1, 28, 28), value, np.float32))
        if refused:
            with pytest.raises(MalformedReplyError, match=r"within \+-20"):
                codec.decode_reply(records, 3, event_of(2))
        else:
            codec.decode_reply(records, 3, event_of(2))


def test_both_directions_have_a_codec_of_their_own():
    codec = Codec(CodecConfig(downlink_codec="uint8", uplink_codec="float16"))
    assert codec.encode_request(request_of())["arrays"]["samples"].dtype == "uint8"
    assert codec.encode_reply(reply_of())["arrays"]["sanitized-gradient"].dtype == "float16"


def test_keys_on_the_wire_are_the_fields_in_kebab_case():
    codec = codec_of("float32")
    request = codec.encode_request(request_of(critic_batches=1))
    assert set(request) == {"arrays", "config"}
    assert set(request["arrays"]) == {"samples", "labels", "critic-samples", "critic-labels"}
    sanitizer = {"clipping", "clipping-bound", "noise-stddev"}
    who = {"experiment-id", "server-round", "checkpoint-round"}
    assert set(request["config"]) == who | sanitizer
    reply = codec.encode_reply(reply_of())
    assert set(reply) == {"arrays", "config"}
    assert set(reply["arrays"]) == {"sanitized-gradient"}
    assert set(reply["config"]) == {"server-round"}


def test_a_request_without_critic_samples_sends_none():
    assert set(codec_of("float32").encode_request(request_of())["arrays"]) == {"samples", "labels"}


@pytest.mark.parametrize("name", CODECS)
def test_the_size_of_a_reply_does_not_depend_on_its_values(name):
    codec = codec_of(name)
    values = (np.zeros, np.ones, lambda shape: np.full(shape, 1e30), lambda s: np.full(s, -1e-30))
    sizes = {payload_bytes(codec.encode_reply(reply_of(of((2, 1, 28, 28))))) for of in values}
    assert len(sizes) == 1


def test_fewer_bits_make_a_smaller_payload():
    codecs = [codec_of(name) for name in ("uint8", "float16", "float32")]
    small, medium, large = (payload_bytes(c.encode_request(request_of())) for c in codecs)
    assert small < medium < large
    small, medium, large = (payload_bytes(c.encode_reply(reply_of())) for c in codecs)
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
    codec = codec_of("float32")
    records = spoil(codec.encode_request(request_of(critic_batches=1)))
    with pytest.raises(MalformedInput, match=text):
        codec.decode_request(over_the_wire(records))


@pytest.mark.parametrize("case", MALFORMED_REPLIES)
def test_a_malformed_reply_is_refused_by_the_name_of_its_field(case):
    spoil, text = MALFORMED_REPLIES[case]
    codec = codec_of("float32")
    records = spoil(codec.encode_reply(reply_of()))
    with pytest.raises(MalformedReplyError, match=text):
        codec.decode_reply(over_the_wire(records), 3, event_of(2))


@pytest.mark.parametrize("case", UNREADABLE)
def test_bytes_that_are_no_array_are_refused_by_the_name_of_their_field(case):
    codec = codec_of("float32")
    reply = with_data("sanitized-gradient", UNREADABLE[case])(codec.encode_reply(reply_of()))
    with pytest.raises(MalformedReplyError, match="sanitized-gradient"):
        codec.decode_reply(over_the_wire(reply), 3, event_of(2))
    request = with_data("samples", UNREADABLE[case])(codec.encode_request(request_of()))
    with pytest.raises(MalformedInput, match="samples"):
        codec.decode_request(over_the_wire(request))


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
    codec = codec_of("float32")
    reply = with_data("sanitized-gradient", data)(codec.encode_reply(reply_of()))
    with pytest.raises(MalformedReplyError, match="sanitized-gradient cannot be read"):
        codec.decode_reply(over_the_wire(reply), 3, event_of(2))
    request = with_data("samples", data)(codec.encode_request(request_of()))
    with pytest.raises(MalformedInput, match="samples cannot be read"):
        codec.decode_request(over_the_wire(request))
    assert not Trap.sprung
    np.load(io.BytesIO(object_array()), allow_pickle=True)
    assert Trap.sprung  # the trap would have worked
    Trap.sprung = False


def test_a_float16_reply_that_overflowed_is_refused():
    codec = codec_of("float16")
    records = with_array("sanitized-gradient", np.full((2, 1, 28, 28), np.inf, dtype=np.float16))
    with pytest.raises(MalformedReplyError, match="must be finite"):
        codec.decode_reply(records(codec.encode_reply(reply_of())), 3, event_of(2))

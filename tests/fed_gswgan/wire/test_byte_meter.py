import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fed_gswgan.wire.byte_meter import ByteMeter, RoundBytes, payload_bytes

NUMPY_HEADER = 128


def letter(size):
    """Records of ``size`` bytes: a key of one letter and a text of the rest."""
    return RecordDict({"config": ConfigRecord({"k": "x" * (size - 1)})})


def test_payload_counts_keys_settings_and_arrays_as_serialised():
    records = RecordDict({
        "arrays": ArrayRecord({"labels": Array(np.zeros(5, dtype=np.uint8))}),
        "config": ConfigRecord({"server-round": 3, "id": "abcd"}),
    })  # fmt: skip
    # "labels", header and 5 values; "server-round" and 8 bytes; "id" and 4 letters
    assert payload_bytes(records) == (6 + NUMPY_HEADER + 5) + (12 + 8) + (2 + 4)


@pytest.mark.parametrize("empty", ["", b"", []])
def test_an_empty_setting_costs_its_key(empty):
    config = ConfigRecord({"ask": empty, "server-round": 3})
    assert payload_bytes(RecordDict({"config": config})) == 3 + 20


def test_nothing_costs_nothing():
    assert payload_bytes(RecordDict()) == 0


def a_round(sent=(), received=()):
    """The bytes of a round of messages, each given as client and size."""
    counted = RoundBytes()
    for client_id, size in sent:
        counted.sent(client_id, letter(size))
    for client_id, size in received:
        counted.received(client_id, letter(size))
    return counted


def test_bytes_are_counted_by_direction_by_client_and_by_round():
    first = a_round([("a", 100), ("b", 100)], [("b", 30)])
    # Who never answered is there too.
    assert first.by_client() == {"a": [100, 0], "b": [100, 30]}
    assert first.uplink == {"b": 30}  # telling changes nothing
    second = a_round([("a", 50)])
    assert second.by_client() == {"a": [50, 0]}
    meter = ByteMeter()
    meter.add(first)
    meter.add(second)
    assert (meter.downlink_total, meter.uplink_total) == (250, 30)
    assert (meter.requests, meter.replies) == (3, 1)


def test_the_summary_tells_both_directions_of_every_client_in_the_order_of_ids():
    by_client = ByteMeter().summary(10, 5, {"b": (80, 30), "a": (100, 0)})["by_client"]
    assert list(by_client.items()) == [
        ("a", {"downlink": 100, "uplink": 0}),
        ("b", {"downlink": 80, "uplink": 30}),
    ]


def test_registration_is_counted_apart():
    meter = ByteMeter()
    meter.registration(letter(12))
    meter.registration(letter(20))
    assert meter.registration_total == 32
    assert (meter.downlink_total, meter.uplink_total, meter.requests) == (0, 0, 0)


def test_summary_by_hand():
    meter = ByteMeter()
    counted = a_round([("a", 100), ("b", 100)], [("a", 40)])
    meter.add(counted)
    meter.registration(letter(7))
    # Sending models: two requests of 10 + 5 parameters and one reply of 5, four bytes each.
    by_client = counted.by_client()
    assert meter.summary(generator_parameters=10, critic_parameters=5, by_client=by_client) == {
        "downlink_total": 200,
        "uplink_total": 40,
        "uplink_per_reply": 40,
        "downlink_per_request": 100,
        "registration_total": 7,
        "by_client": {
            "a": {"downlink": 100, "uplink": 40},
            "b": {"downlink": 100, "uplink": 0},
        },
        "model_exchange_total": 140,
        "model_exchange_ratio": pytest.approx(240 / 140),
    }


def test_a_run_without_messages_has_a_summary_of_zeros():
    summary = ByteMeter().summary(10, 5, {})
    assert summary.pop("by_client") == {}
    assert set(summary.values()) == {0}


def test_counting_goes_on_from_a_saved_state_as_if_never_stopped():
    stopped, whole = ByteMeter(), ByteMeter()
    for meter in (stopped, whole):
        meter.add(a_round([("a", 100)], [("a", 40)]))
    resumed = ByteMeter()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    for meter in (resumed, whole):
        meter.add(a_round([("a", 10), ("new", 20)], [("new", 5)]))
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.summary(10, 5, {}) == whole.summary(10, 5, {})


def test_a_saved_state_does_not_change_with_the_meter():
    meter = ByteMeter()
    meter.add(a_round([("a", 100)]))
    state = meter.state_dict()
    meter.add(a_round([("a", 100)]))
    assert state["downlink_total"] == 100


def test_a_meter_does_not_grow_with_the_clients_it_ever_met():
    meter, sizes = ByteMeter(), []
    for server_round in range(1, 101):
        meter.add(a_round([(f"client-{server_round}-{number}", 100) for number in range(10)]))
        sizes.append(len(json.dumps(meter.state_dict())))
    assert vars(meter).keys() == {*meter.state_dict(), "registration_total"}
    assert sizes[-1] - sizes[0] < 20  # more digits
    assert meter.downlink_total == 100 * 10 * 100

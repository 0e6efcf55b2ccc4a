"""Runs whose clients mask their releases: the ideal sum to the bit, drop-outs, lost rounds."""

import json
import tomllib
from collections import Counter

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.secure_aggregation.protocol import Phase, bytes_beside_payload
from fed_gswgan.wire.message_types import CLIENTS, RECORD, REPLIES, REQUESTS, TRAIN
from fed_gswgan.wire.sum_messages import SumMessage
from simulations.in_process import InProcessGrid
from simulations.tables.table4_rows import CONFIGS
from tests.conftest import SMALL

CLIENTS_ASKED, HONEST, COLLUDING, SHARDS = 10, 6, 1, 5  # H = 0.65 n, c = 0.1 n
SETTINGS = {
    "max_clients": CLIENTS_ASKED, "cohort_size": CLIENTS_ASKED, "trust": "secure-aggregation",
    "honest_share": 0.65, "colluding_share": 0.1, "critic": "cramer", "features": "dct",
    "feature_frequencies": 4, "prior": "none", "points": 1, "fit_steps": 2, "rounds": 3,
    "noise_stddev": 8.0, "reply_timeout_seconds": 2.0,
}  # fmt: skip
LATER = [Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASKED]


class Losing(InProcessGrid):
    """Loses or spoils what some clients answer."""

    def __init__(self, inner, spoilt):
        self.__dict__.update(inner.__dict__)
        self.spoilt = spoilt

    def pull_messages(self, message_ids):
        for reply in super().pull_messages(message_ids):
            yield self.asked.pop(reply.metadata.reply_to_message_id, lambda reply: reply)(reply)

    def push_messages(self, messages):
        messages = list(messages)
        ids = list(super().push_messages(messages))
        self.__dict__.setdefault("asked", {})
        for message, message_id in zip(messages, ids, strict=True):
            if message.metadata.message_type == TRAIN:
                self.asked[message_id] = lambda reply, message=message: self._spoil(message, reply)
        return ids

    def _spoil(self, message, reply):
        record = message.content[RECORD]
        asked = SumMessage.decode(record[REQUESTS][0])
        blobs = [
            self.spoilt(asked.server_round, asked.phase, client, blob)
            for client, blob in zip(record[CLIENTS], reply.content[RECORD][REPLIES], strict=True)
        ]
        return Message(RecordDict({RECORD: ConfigRecord({REPLIES: blobs})}), reply_to=message)


def weights(folder):
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    return (folder / "checkpoint" / index["tensors"]).read_bytes()


def charges(folder):
    """Return how often each user was charged, and that no round was charged twice."""
    counts = Counter()
    for shard in sorted((folder / "clients").glob("shard-*")):
        with Ledger(shard) as ledger:
            lines = list(ledger.lines())
        assert len({(line.user, line.server_round) for line in lines}) == len(lines)
        counts += Counter(line.user for line in lines)
    return counts


@pytest.fixture
def masked_run(small_run):
    """Return a function that runs the protocol, with answers spoilt on their way."""

    def run(name="run", spoilt=lambda server_round, phase, client, blob: blob, **changed):
        settings = {**SETTINGS, "secure_aggregation": "protocol", **changed}
        return small_run(name, shards=SHARDS, grid=lambda inner: Losing(inner, spoilt), **settings)

    return run


def test_the_protocol_gives_the_generator_of_the_ideal_sum_to_the_bit(small_run, masked_run):
    ideal = small_run("ideal", shards=SHARDS, **SETTINGS)
    masked = masked_run("masked")
    assert weights(masked) == weights(ideal)
    rounds, plain = read_rounds(masked), read_rounds(ideal)
    assert [line["received"] for line in rounds] == [CLIENTS_ASKED] * 3
    beside = bytes_beside_payload(CLIENTS_ASKED)
    for one, other in zip(rounds, plain, strict=True):
        sent = one["downlink_bytes"] + one["uplink_bytes"]
        payload = other["downlink_bytes"] + other["uplink_bytes"]
        framing = sent - payload - CLIENTS_ASKED * beside
        assert 0 < framing < CLIENTS_ASKED * (400 + 32 * CLIENTS_ASKED)
    for folder, kind in ((ideal, "ideal"), (masked, "protocol")):
        privacy = json.loads((folder / "summary.json").read_text())["privacy"]
        assert privacy["secure_aggregation"] == kind
    assert set(charges(masked).values()) == {3}


@pytest.mark.slow
def test_fifty_real_writers_under_masks_give_the_generator_of_the_ideal_sum(small_run):
    """Three rounds at epsilon 10, as ``simulations/configs/writers.toml`` asks 1,232."""
    table = tomllib.loads((CONFIGS / "writers.toml").read_text())
    settings = {key.replace("-", "_"): value for key, value in table.items()} | {
        "max_clients": 50, "cohort_size": 50, "epsilon": 10.0, "noise_stddev": 0.0,
        "fit_steps": 6, "evaluation_samples": 0, "generator_width": 32,
    }  # fmt: skip
    found = {}
    for kind in ("ideal", "protocol"):
        folder = small_run(kind, shards=4, **settings, secure_aggregation=kind)
        found[kind] = weights(folder)
        assert [line["received"] for line in read_rounds(folder)] == [50] * 3
    assert found["ideal"] == found["protocol"]


@pytest.mark.parametrize("phase", LATER)
def test_three_in_ten_who_drop_out_in_every_round_end_no_run(masked_run, phase):
    """Another three each time; what they had sent before is in no sum, or its masks come off."""

    def spoilt(server_round, now, client, blob):
        gone = (int(client[-5:]) + 3 * server_round) % CLIENTS_ASKED < 3
        return b"" if gone and now >= phase else blob

    folder = masked_run(spoilt=spoilt)
    rounds = read_rounds(folder)
    assert [line["stepped"] for line in rounds] == [True] * 3
    left = CLIENTS_ASKED if phase > Phase.MASKED else 7
    assert [line["received"] for line in rounds] == [left] * 3
    privacy = json.loads((folder / "summary.json").read_text())["privacy"]
    assert privacy["honest"] == HONEST
    assert privacy["epsilon_max"] <= privacy["epsilon_server_bound"] * (1 + 1e-9)


@pytest.mark.parametrize("phase", Phase)
def test_a_round_without_enough_is_over_and_the_next_one_goes_on(masked_run, phase, caplog):
    """Four of ten are gone: below H and those who may collude."""

    def spoilt(server_round, now, client, blob):
        gone = server_round == 2 and now >= phase and int(client[-5:]) < 4
        return b"" if gone else blob

    folder = masked_run(spoilt=spoilt)
    assert [line["stepped"] for line in read_rounds(folder)] == [True, False, True]
    assert read_rounds(folder)[1]["received"] == 0
    assert "round 2: no sum: " in caplog.text
    counts = charges(folder)
    everybody = {3} if phase > Phase.SHARES else {2}
    assert set(counts.values()) <= everybody | {2, 3}
    assert max(counts.values()) <= 3


def test_what_is_not_of_the_protocol_is_counted_and_left_out(masked_run, caplog):
    """A signature of another, bytes of a wrong length, a masked release that was changed."""
    came = {}

    def spoilt(server_round, phase, client, blob):
        """Spoil the second answer of three phases, whoever it is from."""
        before = came.setdefault(phase, [])
        before.append((client, blob))
        wrong = {
            Phase.KEYS: before[0][1],
            Phase.SHARES: blob[:-1],
            Phase.MASKED: blob[:5] + bytes([blob[5] ^ 1]) + blob[6:],
        }
        return wrong.get(phase, blob) if len(before) == 2 else blob

    folder = masked_run(spoilt=spoilt, rounds=1)
    (line,) = read_rounds(folder)
    assert (line["received"], line["malformed"], line["stepped"]) == (7, 3, True)
    reasons = ("keys of place", "shares: not signed", "masked: not signed")
    for phase, why in zip((Phase.KEYS, *LATER[:2]), reasons, strict=True):
        assert f"{came[phase][1][0]}: {why}" in caplog.text


def test_a_run_that_was_interrupted_in_a_round_goes_on_with_the_next(masked_run):
    seen = []

    def noting(server_round, phase, client, blob):
        seen.append((server_round, phase))
        return blob

    cut = masked_run("cut", noting, interrupted=lambda: (2, Phase.MASKED) in seen)
    assert [line["server_round"] for line in read_rounds(cut)] == [1]
    before, seen[:] = list(seen), []
    masked_run("cut", noting, resume=True)
    assert {server_round for server_round, _ in before} == {1, 2}
    assert {server_round for server_round, _ in seen} == {3}, "round 2 was begun: it is over"
    assert [line["server_round"] for line in read_rounds(cut)] == [1, 3]
    assert set(charges(cut).values()) <= {2, 3}


def test_samples_go_down_in_the_bits_that_are_set(small_run, masked_run):
    """With trained critics they are most of what is sent."""
    samples = {"critic": "mlp", "rounds": 1, "reply_timeout_seconds": 60.0}
    sent = {}
    for bits in (32, 8):
        settings = {**SETTINGS, **samples, "downlink_bits": bits}
        ideal = small_run(f"ideal-{bits}", shards=SHARDS, **settings)
        masked = masked_run(f"masked-{bits}", **samples, downlink_bits=bits)
        sent[bits] = [read_rounds(folder)[0]["downlink_bytes"] for folder in (ideal, masked)]
    pixels = CLIENTS_ASKED * SMALL["batch-size"] * 28 * 28
    for whole, coarse in zip(sent[32], sent[8], strict=True):
        assert whole - coarse >= 3 * pixels  # of 4 bytes; what is left is deflated

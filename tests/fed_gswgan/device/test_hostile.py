"""Generated hostile requests to a real guard: no crash, no budget exceeded, memory flat."""

import json
import logging
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from fed_gswgan.device.folder import open_device, read_identity
from fed_gswgan.device.guard import FAILURES
from fed_gswgan.device.roster import RosterFile
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.secure_aggregation.keys import Identity
from fed_gswgan.secure_aggregation.protocol import Phase
from fed_gswgan.wire.messages import Request, answer_of, decode_release
from fed_gswgan.wire.sum_messages import MAGIC, Announcement, SumMessage, is_sum_message

MOST = 25  # releases that the owner allows
POLICY = f"""
max-epsilon = 100.0
max-participations = {MOST}
trust = ["local", "secure-aggregation"]
min-honest = 2
max-colluding = 0
max-epsilon-alone = 1000.0
answer-seconds = 0.0
"""
PEER = Identity(bytes(range(32)))
WARM_UP = 200
GROWTH_BYTES = 48 * 2**20
ODD_VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.0, 1e-320, 1e308, -1.0,
    float("nan"), float("inf"), float("-inf"), "", "local", "central", "secure-aggregation",
    "x" * 99, "\ud800", "\0", [], [0], [2**28] * 5, [-1], {}, {"x": 1},
    {"shape": [2**28, 2**28], "bits": 1},
]  # fmt: skip


class Attacker:
    """Makes hostile bytes of honest ones, from a seed.

    Args:
        honest: bytes of a request of a round.
        announced: bytes of the first message of a sum, of a round.
        seed: of what is drawn.
    """

    def __init__(self, honest, announced, seed):
        self.honest, self.announced = honest, announced
        self.draw = np.random.default_rng(seed)
        self.sent = [honest(1)]

    def next(self):
        """Return the next message."""
        attacks = (
            self.replay, self.another_round, self.cut, self.flipped, self.promised, self.junk,
            self.odd_field, self.odd_field, self.odd_event, self.odd_tensor, self.bomb, self.sum,
        )  # fmt: skip
        blob = attacks[self.draw.integers(len(attacks))]()
        if len(blob) < 2**16:
            self.sent[self.draw.integers(64) :] = [blob]
        return blob

    def one_of(self, values):
        return values[self.draw.integers(len(values))]

    def replay(self):
        return self.one_of(self.sent)

    def another_round(self):
        return self.honest(int(self.draw.integers(1, 100)))

    def cut(self):
        blob = self.replay()
        return blob[: self.draw.integers(len(blob) + 1)]

    def flipped(self):
        blob = bytearray(self.replay())
        for place in self.draw.integers(max(1, min(len(blob), 2000)), size=3):
            blob[place : place + 1] = self.draw.bytes(1)
        return bytes(blob)

    def promised(self):
        """A size that is not there, before what may be anything."""
        size = self.one_of([0, 1, 2**16, 2**31, 2**56, 2**64 - 1])
        return struct.pack("<Q", size) + self.replay()[8:]

    def junk(self):
        deep = b"[" * 40_000
        headers = np.frombuffer(deep, np.uint8), np.zeros(0, np.uint8), np.zeros(9)
        return self.one_of([
            b"", b"\0", self.draw.bytes(self.draw.integers(300)),
            struct.pack("<Q", len(deep)) + deep, *(save({"header": header}) for header in headers),
        ])  # fmt: skip

    def odd_field(self, part=()):
        """A field of the header that is another value, new or gone."""
        content = load(self.honest(int(self.draw.integers(1, 100))))
        header = place = json.loads(content["header"].tobytes())
        for name in part or self.one_of([(), ("event",), ("tensors",), ("tensors", "samples")]):
            place = place[name]
        name = self.one_of([*place, "another"])
        place[name] = self.one_of(ODD_VALUES)
        if self.draw.random() < 0.1:
            del place[name]
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        return save({**content, "header": np.frombuffer(text, np.uint8)})

    def odd_event(self):
        """Less noise, more rows, another trust: near what the owner allows."""
        request = Request.decode(self.honest(int(self.draw.integers(1, 100))))
        name = self.one_of(["rows", "numbers", "extra", "clipping_bound", "noise_stddev", "honest"])
        value = getattr(request.event, name)
        changed = type(value)(value * self.one_of([0.5, 0.999, 2, 33])) + self.one_of([0, 0, 1])
        content = load(request.encode())
        header = json.loads(content["header"].tobytes())
        header["event"][name] = changed
        text = json.dumps(header).encode()
        return save({**content, "header": np.frombuffer(text, np.uint8)})

    def odd_tensor(self):
        request = Request.decode(self.honest(int(self.draw.integers(1, 100))))
        samples = np.array(request.tensors["samples"])
        samples.flat[self.draw.integers(samples.size)] = self.one_of(
            [np.nan, np.inf, -np.inf, -1e-30, 2.0, 6e4]
        )
        other = self.one_of([
            samples, samples[:0], samples[:1], samples.astype(np.float16), samples.reshape(-1),
            np.zeros((4, 0, 28, 28), np.float32), np.arange(4), samples > 0,
        ])  # fmt: skip
        return replace(request, tensors={**request.tensors, "samples": other}).encode()

    def bomb(self):
        """A tensor of few bytes that would be many when it is inflated."""
        content = load(self.honest(int(self.draw.integers(1, 100))))
        header = json.loads(content["header"].tobytes())
        shape = self.one_of([[2**28], [2**14, 2**14], [4, 1, 28, 28], [1]])
        header["tensors"]["samples"] = {"shape": shape, "bits": self.one_of([1, 4, 8])}
        content["tensor/samples"] = np.frombuffer(zlib.compress(bytes(2**20)), np.uint8)
        return save({**content, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})

    def sum(self):
        """A message of secure aggregation, honest, out of turn, cut or of another body."""
        blob = self.announced(int(self.draw.integers(1, 10_000)))
        kind = self.draw.integers(4)
        if kind == 0:
            return blob
        if kind == 1:
            return blob[: self.draw.integers(len(blob))]
        if kind == 2:
            return MAGIC + self.draw.bytes(self.draw.integers(200))
        message = SumMessage.decode(blob)
        phase, body = (
            self.one_of(list(Phase)),
            self.one_of([b"", self.draw.bytes(99), message.body]),
        )
        return replace(message, phase=phase, body=body).encode()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_generated_hostile_requests_cost_no_more_than_the_budget(
    make_device, first_request, caplog, count
):
    caplog.set_level(logging.ERROR, "fed_gswgan")  # or pytest keeps each line in memory
    folder = make_device(policy=POLICY)
    own = read_identity(folder).public
    RosterFile("me", {own: "alice", PEER.public: "bob"}).install(folder)
    device = open_device(folder)
    made = first_request()

    def announced(server_round):
        event = Event(**{**vars(made.event), "trust": "secure-aggregation", "honest": 2})
        request = replace(made, server_round=server_round, event=event, modulus_bits=14)
        body = Announcement(2, tuple(sorted((own, PEER.public))), request.encode()).encode()
        return SumMessage(Phase.KEYS, "e", server_round, body).encode()

    attacker = Attacker(lambda n: replace(made, server_round=n).encode(), announced, seed=20)
    released, size_before, files_before = {}, 0, 0
    for number in range(count):
        if number == WARM_UP:
            size_before, files_before = resident_bytes(), len(os.listdir("/proc/self/fd"))
        blob = attacker.next()
        if is_sum_message(blob):
            answer = device.sums.answer(blob, device.client)
        else:  # as without the limit on refusals, which would look at few of them
            (answer,) = device.guard.answer(blob, [device.client])
        try:
            answer_of(answer)
        except Refusal:
            continue
        if not is_sum_message(blob):
            request = Request.decode(blob)
            decode_release(answer, request)
            assert released.setdefault(request.key, answer[:100]) == answer[:100]
    assert len(released) == MOST, "the honest ones among them spend all there is, and no more"
    with Ledger(folder) as ledger:
        assert ledger.verify() == MOST
        (spent,) = ledger.releases().values()
    with pytest.raises(Refusal):
        device.policy.admit_spending(spent, made.event)
    assert not (folder / FAILURES).exists(), (folder / FAILURES).read_text()
    assert resident_bytes() - size_before < GROWTH_BYTES
    assert len(os.listdir("/proc/self/fd")) <= files_before

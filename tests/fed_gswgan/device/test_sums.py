"""Sums over real guards: ledgers, state on disk, crashes, and the plain sum of the releases."""

import hashlib
import os
import random
import signal
import sqlite3
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.algorithms.base import ClientView, ReleaseShape, Update
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.device import sums
from fed_gswgan.device.guard import FAILURES, Guard
from fed_gswgan.device.sums import ROUNDS, Sums
from fed_gswgan.privacy import durable, ledger
from fed_gswgan.privacy.ledger import Ledger, owners_hash
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.secure_aggregation.aggregation import Aggregation, TooFewDevices
from fed_gswgan.secure_aggregation.keys import SIGNATURE_BYTES, Identity
from fed_gswgan.secure_aggregation.protocol import Device, Phase, Round
from fed_gswgan.secure_aggregation.terms import Roster
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.encoding import unpack_words
from fed_gswgan.wire.messages import RELEASED, Request, answer_of, encode_refusal
from fed_gswgan.wire.sum_messages import Announcement, SumMessage

DEVICES, HONEST, COLLUDING, THRESHOLD, BITS = 8, 4, 1, 5, 14
EVENT = Event(
    rows=2, numbers=3, extra=1, bounded="message", clipping_bound=1.0, noise_stddev=0.5,
    trust="secure-aggregation", honest=HONEST,
)  # fmt: skip
POLICY = Policy(
    max_epsilon=100.0, trust=("secure-aggregation",), clipping="message", min_noise_stddev=1.0,
    min_honest=HONEST,
)  # fmt: skip
EXPECTED = {"TOO_MANY_PARTICIPATIONS"}  # in a round that goes on
PHASES = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASKED)


class Brightness:
    """Answers each number with the images' brightness; notes when it does."""

    def __init__(self):
        self.computed = []

    def release(self, server_round):
        return ReleaseShape(2, 3, extra=1, bounded="message")

    def check(self, request):
        if request.tensors or request.scalars:
            raise ValueError("nothing is to be sent")

    def update(self, request, client):
        self.computed.append(request.server_round)
        return Update(np.full((2, 3), client.dataset.images.mean()), np.zeros(1))


def request_of(server_round=1, **changed) -> Request:
    usual = dict(
        experiment_id="run", server_round=server_round, algorithm="tiny", event=EVENT,
        modulus_bits=BITS,
    )  # fmt: skip
    return Request(**{**usual, **changed})


class OwnDevice:
    """A device in a folder, as its owner's process opens it: anew, for every message."""

    def __init__(self, folder, place, identities):
        self.folder, self.place, self.client, self.policy = folder, place, Brightness(), POLICY
        self.user = f"writer-{place}"
        people = {identity.public: str(n) for n, identity in enumerate(identities)}
        self.protocol = Device(
            identities[place], Roster(people=people, min_honest=HONEST, max_colluding=COLLUDING)
        )
        self.owners = owners_hash({self.user: (self.user,)})
        if not folder.exists():
            Ledger.create(folder, self.owners)
            Sums.create(folder)

    def answer(self, blob: bytes) -> bytes:
        """Return the message; a refusal is raised."""
        guard = Guard(self.folder, self.owners, "tiny", self.client, self.policy, noise=self.noise)
        return bytes(answer_of(Sums(guard, self.protocol).answer(blob, self.view())))

    def noise(self, client_id, server_round):
        return SeededNoise(SeedStream(7).generator("noise", server_round, client_id))

    def view(self):
        images = np.full((10, 1, 28, 28), (self.place + 1) / 64, np.float32)
        dataset = ClientDataset((self.user,), images, np.arange(10))
        return ClientView(self.user, (self.user,), lambda: dataset, SeedStream(0))

    def charges(self) -> int:
        with Ledger(self.folder) as opened:
            return sum(of.total() for of in opened.releases().values())

    def plain(self, request: Request) -> np.ndarray:
        """Return the release that the device adds, by a guard of a simulation in another folder."""
        folder = self.folder.with_name(f"plain-{self.place}-{request.server_round}")
        Ledger.create(folder, self.owners)
        guard = Guard(
            folder, self.owners, "tiny", Brightness(), POLICY, noise=self.noise, simulated=True
        )
        (reply,) = guard.answer(request.encode(), [self.view()])
        return unpack_words(memoryview(reply)[1:], BITS, EVENT.size)


class Federation:
    """Devices, and a server that asks one phase after another."""

    def __init__(self, folder):
        made = [Identity(hashlib.sha256(str(n).encode()).digest()) for n in range(DEVICES)]
        identities = sorted(made, key=lambda identity: identity.public)
        self.refused: set[str] = set()
        self.cohort = tuple(identity.public for identity in identities)
        self.devices = [OwnDevice(folder / f"{n}", n, identities) for n in range(DEVICES)]

    def announce(self, request: Request) -> bytes:
        return Announcement(THRESHOLD, self.cohort, request.encode()).encode()

    def server(self, request: Request) -> Aggregation:
        terms = Announcement(THRESHOLD, self.cohort, b"").terms(request)
        return Aggregation(terms, HONEST + COLLUDING)

    def ask(self, phase, request, bodies) -> dict[int, bytes]:
        """Return the answers of those who do not refuse."""
        answers = {}
        for place, body in bodies.items():
            named = SumMessage(phase, request.experiment_id, request.server_round, body)
            try:
                answers[place] = self.devices[place].answer(named.encode())
            except Died:
                continue
            except Refusal as refusal:
                self.refused.add(refusal.name)
        return answers

    def run(self, request, gone=lambda phase: frozenset()) -> tuple[np.ndarray, list[int]]:
        """Return the sum and whose releases are in it; ``gone`` do not answer a phase."""
        server = self.server(request)

        def ask(phase, bodies):
            here = {p: body for p, body in bodies.items() if p not in gone(phase)}
            return self.ask(phase, request, here)

        everybody = dict.fromkeys(range(DEVICES), self.announce(request))
        keys = ask(Phase.KEYS, everybody)
        message = server.take_keys(keys)
        sealed = server.take_shares(ask(Phase.SHARES, dict.fromkeys(keys, message)))
        summed = []
        for place, reply in ask(Phase.MASKED, sealed).items():
            payload, signature = reply[:-SIGNATURE_BYTES], reply[-SIGNATURE_BYTES:]
            steps = unpack_words(memoryview(payload), BITS, EVENT.size)
            if server.add_masked(place, steps, payload, signature):
                summed.append(place)
        survivors = server.survivors()
        signed = ask(Phase.SURVIVORS, dict.fromkeys(summed, survivors))
        signatures = server.take_signatures(signed)
        revealed = ask(Phase.UNMASKED, dict.fromkeys(signed, signatures))
        assert self.refused <= EXPECTED
        return server.unmask(revealed), summed

    def plain_sum(self, request, places) -> np.ndarray:
        total = sum(self.devices[place].plain(request) for place in places)
        return total & (2**BITS - 1)


@pytest.fixture
def federation(tmp_path) -> Federation:
    return Federation(tmp_path)


def test_the_sum_is_the_plain_sum_of_the_releases_and_each_user_is_charged_once(federation):
    for server_round in (1, 2):
        request = request_of(server_round)
        found, summed = federation.run(request)
        assert summed == list(range(DEVICES))
        assert np.array_equal(found, federation.plain_sum(request, summed))
        assert [device.charges() for device in federation.devices] == [server_round] * DEVICES
    for device in federation.devices:
        assert device.client.computed == [1, 2]
        assert not (device.folder / FAILURES).exists()


@pytest.mark.parametrize("phase", PHASES)
def test_devices_that_vanish_before_a_phase_stop_no_sum(federation, phase):
    gone = frozenset({1, 5})
    request = request_of()
    found, summed = federation.run(request, lambda now: gone if now >= phase else frozenset())
    left = {*range(DEVICES)} - (gone if phase <= Phase.MASKED else frozenset())
    assert summed == sorted(left)
    assert np.array_equal(found, federation.plain_sum(request, summed))
    charged = {place for place in range(DEVICES) if federation.devices[place].charges()}
    assert charged == left
    found, summed = federation.run(request_of(2))
    assert summed == list(range(DEVICES))


def test_a_phase_is_answered_once_and_a_round_attempted_once(federation):
    request = request_of()
    device, asked = federation.devices[0], []
    answer = device.answer

    def noted(blob):
        asked.append(blob)
        return answer(blob)

    device.answer = noted
    federation.run(request)
    assert len(asked) == len(PHASES)
    for blob in asked:
        with pytest.raises(Refusal) as refused:
            answer(blob)
        assert refused.value.name == "REPLAY"
    smaller = Announcement(THRESHOLD, federation.cohort[:7], request.encode()).encode()
    other = federation.announce(request_of(event=replace(EVENT, noise_stddev=0.6)))
    for body in (smaller, other):  # a second cohort, a second request
        with pytest.raises(Refusal) as refused:
            answer(SumMessage(Phase.KEYS, "run", 1, body).encode())
        assert refused.value.name == "REPLAY"
    assert device.charges() == 1


def test_no_secret_is_left_in_the_file_after_a_round(federation):
    device, request, kept = federation.devices[0], request_of(), []
    answer = device.answer

    def noted(blob):
        reply = answer(blob)
        if SumMessage.decode(blob).phase == Phase.MASKED:
            with sqlite3.connect(device.folder / ROUNDS) as rounds:
                ((state,),) = rounds.execute("SELECT state FROM rounds")
            kept.append(Round.from_json(state))
        return reply

    device.answer = noted
    federation.run(request)
    content = (device.folder / ROUNDS).read_bytes()
    for secret in (kept[0].seed, kept[0].masking_secret, *kept[0].pair_keys.values()):
        assert secret.hex().encode() not in content
    assert (device.folder / ROUNDS).stat().st_mode & 0o777 == 0o600


def test_a_new_round_ends_the_ones_before(federation):
    device, request = federation.devices[0], request_of()
    keys = federation.ask(
        Phase.KEYS, request, dict.fromkeys(range(DEVICES), federation.announce(request))
    )
    message = federation.server(request).take_keys(keys)
    later = request_of(2)
    device.answer(SumMessage(Phase.KEYS, "run", 2, federation.announce(later)).encode())
    with pytest.raises(Refusal) as refused:
        device.answer(SumMessage(Phase.SHARES, "run", 1, message).encode())
    assert refused.value.name == "REPLAY"
    with sqlite3.connect(device.folder / ROUNDS) as rounds:
        (kept,) = rounds.execute("SELECT count(*) FROM rounds WHERE state IS NOT NULL").fetchone()
    assert kept == 1


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"event": replace(EVENT, honest=3, noise_stddev=1.0)}, "REQUEST_EXCEEDS_POLICY"),
        ({"event": replace(EVENT, noise_stddev=0.1)}, "REQUEST_EXCEEDS_POLICY"),
        ({"algorithm": "other"}, "REQUEST_EXCEEDS_POLICY"),
        ({"event": replace(EVENT, extra=0)}, "MALFORMED_INPUT"),
        ({"scalars": {"lr": 1.0}}, "MALFORMED_INPUT"),
        (
            {"event": replace(EVENT, trust="local", honest=1, noise_stddev=1.0), "modulus_bits": 0},
            "MALFORMED_INPUT",
        ),
        ({"server_round": 2}, "MALFORMED_INPUT"),
        ({"experiment_id": "another"}, "MALFORMED_INPUT"),
    ],
)
def test_a_request_that_breaks_the_policy_is_refused_before_any_key_is_made(
    federation, changed, name
):
    device = federation.devices[0]
    body = federation.announce(request_of(**changed))
    with pytest.raises(Refusal) as refused:
        device.answer(SumMessage(Phase.KEYS, "run", 1, body).encode())
    assert refused.value.name == name
    with sqlite3.connect(device.folder / ROUNDS) as rounds:
        assert rounds.execute("SELECT count(*) FROM rounds").fetchone() == (0,)


@pytest.mark.parametrize(
    "blob",
    [
        b"", b"\x01", b"\x09" + bytes(9), SumMessage(Phase.KEYS, "run", 1, b"").encode(),
        SumMessage(Phase.KEYS, "run", 0, b"abc").encode(),
        SumMessage(Phase.KEYS, "run", 1, b"\x00\x05\x00\x08abc").encode(),
        SumMessage(Phase.SHARES, "run", 1, b"abc").encode(), "text",
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_refused(federation, blob):
    with pytest.raises(Refusal) as refused:
        federation.devices[0].answer(blob)
    assert refused.value.name in ("MALFORMED_INPUT", "REPLAY")
    assert not (federation.devices[0].folder / FAILURES).exists()


def test_without_its_file_of_rounds_a_device_answers_nothing(federation):
    (federation.devices[0].folder / ROUNDS).unlink()
    body = federation.announce(request_of())
    with pytest.raises(Refusal) as refused:
        federation.devices[0].answer(SumMessage(Phase.KEYS, "run", 1, body).encode())
    assert refused.value.name == "BUDGET_EXHAUSTED"


def test_an_exhausted_user_stays_away_from_the_first_phase_on_and_reads_no_data(federation):
    device = federation.devices[2]
    device.policy = POLICY.model_copy(update={"max_participations": 1})
    federation.run(request_of(1))
    body = federation.announce(request_of(2))
    with pytest.raises(Refusal) as refused:
        device.answer(SumMessage(Phase.KEYS, "run", 2, body).encode())
    assert refused.value.name == "TOO_MANY_PARTICIPATIONS"
    _, summed = federation.run(request_of(2))
    assert summed == [place for place in range(DEVICES) if place != 2]
    assert device.client.computed == [1]
    assert device.charges() == 1


def test_what_fails_while_computing_is_noise_under_the_same_masks(federation):
    def fail(request, client):
        raise RuntimeError("a fact about the data")

    federation.devices[3].client.update = fail
    _, summed = federation.run(request_of())
    assert summed == list(range(DEVICES))
    assert "a fact about the data" in (federation.devices[3].folder / FAILURES).read_text()
    assert federation.devices[3].charges() == 1


class Died(Exception):
    """The device's process was killed; no answer came."""


def dying(device, phase, at):
    """Let a device answer in a process of its own, killed at a durable step of a phase.

    A step counts twice: before what it writes is on disk, and after.

    Returns:
        A list that is empty until the process was killed.
    """
    answer, killed = device.answer, []

    def answered(blob):
        if SumMessage.decode(blob).phase != phase:
            return answer(blob)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            count_down = iter(range(at, -1, -1))

            def die_perhaps():
                if next(count_down) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            @contextmanager
            def transaction(db):
                with durable.transaction(db):
                    yield
                    die_perhaps()
                die_perhaps()

            def write_durably(*given):
                die_perhaps()
                durable.write_durably(*given)
                die_perhaps()

            sums.transaction = ledger.transaction = transaction
            ledger.write_durably = write_durably
            try:
                os.write(writer, RELEASED + answer(blob))
            except Refusal as refusal:
                os.write(writer, encode_refusal(refusal))
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            reply = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed.append(phase)
            raise Died
        return bytes(answer_of(reply))

    device.answer = answered
    return killed


# Durable steps of each phase, each before and after; the masked release also charges the ledger.
STEPS = {Phase.KEYS: 2, Phase.SHARES: 2, Phase.MASKED: 8, Phase.SURVIVORS: 2, Phase.UNMASKED: 2}


@pytest.mark.parametrize(
    ("phase", "at"), [(phase, at) for phase, steps in STEPS.items() for at in range(steps)]
)
def test_a_device_killed_at_any_durable_step_answers_no_more_and_the_sum_goes_on(
    federation, phase, at
):
    device, request, asked = federation.devices[0], request_of(), []
    answer = device.answer
    killed = dying(device, phase, at)
    died = device.answer

    def noted(blob):
        asked.append(blob)
        return died(blob)

    device.answer = noted
    found, summed = federation.run(request)
    assert killed == [phase]
    assert (0 in summed) == (phase > Phase.MASKED)
    assert np.array_equal(found, federation.plain_sum(request, summed))
    charged = device.charges()
    assert charged <= 1
    assert charged == 1 or phase < Phase.MASKED or (phase == Phase.MASKED and at < 4)

    # What was on disk is not done again; what was not may be, since no message had left.
    device.answer = answer
    for blob in asked:
        if SumMessage.decode(blob).phase == phase and at == 0:
            continue
        with pytest.raises(Refusal) as refused:
            answer(blob)
        assert refused.value.name in ("REPLAY", "UNSAFE_AGGREGATION")
    assert device.charges() == charged
    _, summed = federation.run(request_of(2))
    assert summed == list(range(DEVICES))


def test_the_steps_above_are_all_durable_steps(federation):
    for server_round, (phase, steps) in enumerate(STEPS.items(), 1):
        answer = federation.devices[0].answer
        killed = dying(federation.devices[0], phase, steps)
        _, summed = federation.run(request_of(server_round))
        assert killed == []
        assert 0 in summed
        federation.devices[0].answer = answer


@pytest.mark.slow
def test_two_hundred_random_kills_open_no_small_sum_and_pass_no_budget(federation):
    """One to three of eight devices die in a round, each at a step drawn from a seed."""
    drawn, kills, server_round, sizes, limit, spent = random.Random(0), 0, 0, [], 120, 0
    answers = [device.answer for device in federation.devices]
    for device in federation.devices:
        device.policy = POLICY.model_copy(update={"max_participations": limit, "max_epsilon": 1e6})
    while kills < 200 or spent < 20:  # rounds in which somebody's budget is spent
        server_round += 1
        spent += max(device.charges() for device in federation.devices) == limit
        assert server_round < 4 * limit
        dead = []
        for place in drawn.sample(range(DEVICES), drawn.randrange(1, 4)):
            phase = drawn.choice(PHASES)
            device = federation.devices[place]
            dead.append(dying(device, phase, drawn.randrange(STEPS[phase])))
        request = request_of(server_round)
        try:
            found, summed = federation.run(request)
        except TooFewDevices:
            sizes.append(0)
        else:
            assert np.array_equal(found, federation.plain_sum(request, summed))
            sizes.append(len(summed))
        kills += sum(map(len, dead))
        for device, answer in zip(federation.devices, answers, strict=True):
            device.answer = answer
    assert all(size == 0 or size >= HONEST + COLLUDING for size in sizes)
    for device in federation.devices:
        with Ledger(device.folder) as opened:
            rounds = [line.server_round for line in opened.lines()]
            assert opened.verify() == len(rounds) == len(set(rounds)) <= limit

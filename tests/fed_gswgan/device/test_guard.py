"""Promises of the guard, with an algorithm small enough to check by hand, and with GS-WGAN."""

import errno
import json
import math
import os
import pickle
import re
import secrets
import shutil
import sqlite3
import stat
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from fed_gswgan.algorithms.base import ClientView, ReleaseShape, Update
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.device.guard import FAILURES, Guard, note_failure
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger, owners_hash
from fed_gswgan.privacy.mechanism import Event, grid_step, privatize
from fed_gswgan.privacy.noise import NoiseSource, SeededNoise
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    LedgerUnavailable,
    MalformedInput,
    MechanismSelftestFailed,
    MinSeparation,
    Refusal,
    Replay,
    RequestExceedsPolicy,
    RngUnavailable,
    TooManyParticipations,
)
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request, decode_release, encode_refusal, release_levels

USERS = {"alice": ("a",), "bob": ("b1", "b2"), "carol": ("c",)}
BRIGHTNESS = {"alice": 0.0625, "bob": 0.125, "carol": 0.25}
# So little noise that a release shows the update to four digits.
FAINT = 1e-6
EVENT = Event(rows=2, numbers=3, extra=1, clipping_bound=1.0, noise_stddev=FAINT)
POLICY = Policy(max_epsilon=math.inf, max_rows=2, min_noise_stddev=FAINT)


class TinyClient:
    """Answers each number with the images' brightness times the factor, and counts its rounds."""

    def release(self, server_round):
        return ReleaseShape(2, 3, extra=1)

    def check(self, request):
        if request.tensors.keys() | request.scalars.keys() != {"factor"}:
            raise ValueError("factor must be given, and nothing else")

    def update(self, request, client):
        rounds = 0 if client.state is None else int(client.state["rounds"][0])
        value = client.dataset.images.mean() * request.scalars["factor"]
        state = {"rounds": np.array([rounds + 1])}
        return Update(np.full((2, 3), value), np.array([rounds / 10]), state)


class Shard:
    """A guard over a folder with a ledger, and the clients that it answers for."""

    def __init__(self, folder, client, policy, algorithm="tiny", **guard):
        self.folder, self.policy, self.reads = folder, policy, []
        if not folder.exists():
            Ledger.create(folder, owners_hash(USERS))
        self.guard = Guard(folder, owners_hash(USERS), algorithm, client, policy, **guard)

    def read(self, client_id):
        self.reads.append(client_id)
        images = np.full((10, 1, 28, 28), BRIGHTNESS[client_id], np.float32)
        return ClientDataset(USERS[client_id], images, np.arange(10))

    def views(self, client_ids, read=None):
        read = read or self.read
        return [ClientView(c, USERS[c], lambda c=c: read(c), SeedStream(0)) for c in client_ids]

    def answer(self, request, *client_ids, read=None):
        blob = request if isinstance(request, bytes) else request.encode()
        return self.guard.answer(blob, self.views(client_ids or USERS, read))

    def charges(self):
        with Ledger(self.folder) as ledger:
            return {user: events.total() for user, events in ledger.releases().items()}

    def files(self):
        kept = (LEDGER, HEAD, REPLIES)
        return {name: (self.folder / name).read_bytes() for name in kept}


@pytest.fixture
def tiny(tmp_path):
    """Return a function that builds a shard over one folder, again and again."""

    def make(client=None, policy=POLICY, **guard):
        return Shard(tmp_path / "shard", client or TinyClient(), policy, **guard)

    return make


def ask(server_round=1, **fields):
    given = {"experiment_id": "e", "algorithm": "tiny", "event": EVENT, "scalars": {"factor": 2.0}}
    return Request(server_round=server_round, **given | fields)


def values(answer, request):
    """The rows and the extra number of a release."""
    numbers = decode_release(answer, request) * grid_step(request.event)
    return numbers[:-1].reshape(2, 3), numbers[-1]


def refusal_of(answer, request=None):
    with pytest.raises(Refusal) as found:
        decode_release(answer, request or ask())
    return found.value


def assert_update(answer, request, row_value, extra=0.0):
    rows, found = values(answer, request)
    assert rows == pytest.approx(np.full((2, 3), row_value), abs=1e-4)
    assert found == pytest.approx(extra, abs=1e-4)


class TestAnswers:
    def test_each_client_answers_from_its_data_and_state(self, tiny):
        shard = tiny()
        first, second = ask(1), ask(2)
        for answer, client_id in zip(shard.answer(first), USERS, strict=True):
            assert_update(answer, first, 2 * BRIGHTNESS[client_id])
        assert shard.charges() == {"a": 1, "b1": 1, "b2": 1, "c": 1}
        (answer,) = shard.answer(second, "bob")
        assert_update(answer, second, 0.25, extra=0.1)
        assert shard.charges() == {"a": 1, "b1": 2, "b2": 2, "c": 1}
        other = ask(2, experiment_id="another run")
        assert_update(shard.answer(other, "bob")[0], other, 0.25, extra=0.0)

    def test_a_long_update_is_clipped_and_one_that_is_not_finite_is_zero(self, tiny):
        class Long(TinyClient):
            def update(self, request, client):
                return Update(np.array([[3.0, 0, 4], [np.nan, 1, 1]]), np.array([np.inf]))

        (answer,) = tiny(Long()).answer(ask(), "alice")
        rows, extra = values(answer, ask())
        assert rows == pytest.approx(np.array([[0.6, 0, 0.8], [0, 0, 0]]), abs=1e-4)
        assert extra == pytest.approx(0, abs=1e-4)

    def test_the_same_request_gives_the_same_bytes_at_no_charge(self, tiny):
        shard = tiny()
        before = shard.answer(ask(1))
        charges, reads = shard.charges(), list(shard.reads)
        assert tiny().answer(ask(1)) == before  # by another process over the same folder
        assert shard.answer(ask(1), "bob") == [before[1]]
        assert (shard.charges(), shard.reads) == (charges, reads)
        assert shard.answer(ask(1, scalars={"factor": 2.5}), "bob") != [before[1]]
        assert shard.charges() == charges | {"b1": 2, "b2": 2}

    def test_the_charge_is_on_disk_before_the_data_is_read(self, tiny):
        shard, seen = tiny(), []

        def read(client_id):
            uri = f"file:{shard.folder / LEDGER}?mode=ro"
            with sqlite3.connect(uri, uri=True) as ledger:
                users = [user for (user,) in ledger.execute("SELECT user FROM lines")]
            head = json.loads((shard.folder / HEAD).read_text())["number"]
            seen.append((client_id, users, head))
            return shard.read(client_id)

        shard.answer(ask(), "alice", "bob", read=read)
        assert seen == [("alice", ["a", "b1", "b2"], 3), ("bob", ["a", "b1", "b2"], 3)]

    def test_under_central_trust_no_noise_is_added_and_the_owners_is_charged(self, tiny):
        owners = replace_policy(POLICY, trust=("central",), central_noise_stddev=50.0)
        event = replace(EVENT, trust="central", noise_stddev=1e3)
        request = ask(event=event, scalars={"factor": 1.0})
        shard = tiny(policy=owners)
        (answer,) = shard.answer(request, "bob")
        steps = decode_release(answer, request)
        assert steps.tolist() == [0.125 / grid_step(event)] * 6 + [0]
        with Ledger(shard.folder) as ledger:
            (charged,) = ledger.releases(["b1"])["b1"]
        assert charged == replace(event, noise_stddev=50.0)

    def test_a_simulation_answers_the_ideal_form_of_secure_aggregation(self, tiny):
        event = replace(EVENT, trust="secure-aggregation", noise_stddev=0.01, honest=2)
        policy = replace_policy(POLICY, trust=("secure-aggregation",), min_noise_stddev=0.01)
        request = ask(event=event, modulus_bits=20)
        shard = tiny(policy=policy, simulated=True)
        steps = [decode_release(answer, request) for answer in shard.answer(request)]
        total = sum(steps) % 2**20 * grid_step(event)
        assert total[:6] == pytest.approx(np.full(6, 0.875), abs=0.01 * 3**0.5 * 7)


def replace_policy(policy, **limits):
    return policy.model_copy(update=limits)


class TestRefusals:
    @pytest.mark.parametrize(
        ("limits", "asked", "kind", "limit"),
        [
            ({"max_participations": 1}, {}, TooManyParticipations, "max-participations=1"),
            ({"max_epsilon": 5.0}, {}, BudgetExhausted, "max-epsilon=5"),
            ({"min_separation_rounds": 4}, {}, MinSeparation, "min-separation-rounds=4"),
            ({"min_separation_seconds": 9e9}, {}, MinSeparation, "min-separation-seconds=9e+09"),
        ],
    )
    def test_a_limit_refuses_by_code_before_the_data_is_read(
        self, tiny, limits, asked, kind, limit
    ):
        """Who has room is answered beside who has none, and the refusal tells only the limit."""
        tiny().answer(ask(1), "alice", "carol")
        shard = tiny(policy=replace_policy(POLICY, **limits))
        answers = shard.answer(ask(2))
        expected = b"\x01" + json.dumps({"code": kind.code, "limit": limit}).encode()
        assert (answers[0], answers[2]) == (expected, expected)
        if kind is BudgetExhausted:  # one release of so little noise is too many for anybody
            assert answers[1] == expected
        else:
            assert_update(answers[1], ask(2), 0.25)
        assert not {"alice", "carol"} & set(shard.reads)
        assert (shard.charges()["a"], shard.charges()["c"]) == (1, 1)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda f: (f / LEDGER).unlink(),
            lambda f: (f / HEAD).unlink(),
            lambda f: (f / REPLIES).unlink(),
            lambda f: os.truncate(f / LEDGER, 100),
            lambda f: (f / HEAD).write_text('{"number": 0, "hash": ""}'),
            lambda f: (f / LEDGER).write_bytes((f / HEAD).read_bytes()),
            lambda f: shutil.rmtree(f),
            lambda f: [shutil.copy(f.parent / "old" / name, f) for name in (LEDGER, HEAD)],
        ],
        ids=["no ledger", "no head", "no replies", "cut", "head", "no database", "none", "older"],
    )
    def test_a_broken_ledger_refuses_all_even_kept_replies(self, tiny, damage):
        shard = tiny()
        shard.answer(ask(1))
        shutil.copytree(shard.folder, shard.folder.parent / "old")
        shard.answer(ask(2))
        damage(shard.folder)
        shard.reads.clear()
        exhausted = encode_refusal(LedgerUnavailable(""))
        assert json.loads(exhausted[1:]) == {"code": BudgetExhausted.code, "limit": ""}
        for server_round in (1, 2, 3):
            assert shard.answer(ask(server_round)) == [exhausted] * 3
        assert shard.reads == []

    def test_a_ledger_of_other_users_is_not_charged(self, tiny):
        shard = tiny()
        shard.guard.owners = owners_hash(USERS | {"carol": ("a",)})
        assert shard.answer(ask(), "alice") == [encode_refusal(LedgerUnavailable(""))]
        assert (shard.reads, shard.charges()) == ([], {})

    @pytest.mark.parametrize("fault", ["none", "repeated"])
    def test_without_randomness_nothing_is_charged(self, tiny, monkeypatch, fault):
        def broken(count):
            if fault == "none":
                raise OSError("no entropy")
            return b"\0" * count

        shard = tiny()
        monkeypatch.setattr(secrets, "token_bytes", broken)
        assert {type(refusal_of(a)) for a in shard.answer(ask())} == {RngUnavailable}
        assert (shard.reads, shard.charges()) == ([], {})

    def test_a_mechanism_without_noise_releases_nothing(self, tiny):
        class Silent(NoiseSource):
            def draw(self, values, stddev, step):
                return np.rint(values / step).astype(np.int64)

        shard = tiny(noise=lambda client_id, server_round: Silent())
        assert {type(refusal_of(a)) for a in shard.answer(ask())} == {MechanismSelftestFailed}
        assert (shard.reads, shard.charges()) == ([], {})


class Failing(TinyClient):
    """Bob's part fails, in one of many ways, from the second round on."""

    def __init__(self, way):
        self.way = way

    def update(self, request, client):
        made = super().update(request, client)
        if client.client_id != "bob" or request.server_round == 1:
            return made
        if self.way == "raises":
            raise RuntimeError(f"secret {made.rows_RN[0, 0]}")
        if self.way == "out of memory":
            raise MemoryError
        if self.way == "no update":
            return None
        if self.way == "no numbers":
            return Update(np.full((2, 3), "x"), np.zeros(1))
        return Update(made.rows_RN[:1], made.extra_E, made.state)


class FailingTogether(Failing):
    def updates(self, request, clients):
        if self.way == "all" and request.server_round == 2:
            raise RuntimeError("all of them")
        made = []
        for client in clients:
            try:
                made.append(self.update(request, client))
            except Exception as error:
                made.append(error)
        return made[:2] if self.way == "too few" and request.server_round == 2 else made


class TestFailures:
    @pytest.mark.parametrize("kind", [Failing, FailingTogether])
    @pytest.mark.parametrize(
        "way", ["raises", "out of memory", "no update", "no numbers", "another shape"]
    )
    def test_a_failure_is_answered_with_noise_alone_and_charged(self, tiny, kind, way):
        """Clients of the same batch are unaffected, and the failed one keeps its state."""
        shard = tiny(kind(way))
        shard.answer(ask(1))
        answers = shard.answer(ask(2))
        for answer, value, extra in zip(answers, (0.125, 0.0, 0.5), (0.1, 0.0, 0.1), strict=True):
            assert_update(answer, ask(2), value, extra)
        assert answers[1] != bytes(len(answers[1]))  # there is noise
        assert shard.charges() == {"a": 2, "b1": 2, "b2": 2, "c": 2}
        log = shard.folder / FAILURES
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert "Traceback" in log.read_text()
        assert_update(tiny().answer(ask(3), "bob")[0], ask(3), 0.25, extra=0.1)

    @pytest.mark.parametrize(("way", "failed"), [("all", (0, 1, 2)), ("too few", (2,))])
    def test_a_batch_that_fails_is_answered_with_noise_alone(self, tiny, way, failed):
        shard = tiny(FailingTogether(way))
        shard.answer(ask(1))
        for number, answer in enumerate(shard.answer(ask(2))):
            if number in failed:
                assert_update(answer, ask(2), 0.0)
        assert shard.charges() == {"a": 2, "b1": 2, "b2": 2, "c": 2}

    def test_data_that_cannot_be_read_is_a_failure_like_any_other(self, tiny):
        shard = tiny()

        def read(client_id):
            if client_id == "bob":
                raise OSError("the disk is gone")
            return shard.read(client_id)

        answers = shard.answer(ask(), read=read)
        for answer, value in zip(answers, (0.125, 0.0, 0.5), strict=True):
            assert_update(answer, ask(), value)
        assert shard.charges()["b1"] == 1

    def test_a_damaged_state_costs_its_client_alone_a_round(self, tiny):
        shard = tiny()
        shard.answer(ask(1))
        with sqlite3.connect(shard.folder / REPLIES) as replies:
            replies.execute("UPDATE states SET state = 'x' WHERE client = 'bob'")
        answers = shard.answer(ask(2))
        for answer, value, extra in zip(answers, (0.125, 0.25, 0.5), (0.1, 0.0, 0.1), strict=True):
            assert_update(answer, ask(2), value, extra)

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "full"), sqlite3.OperationalError("disk is full")]
    )
    def test_a_full_disk_keeps_no_reply_and_answers(self, tiny, monkeypatch, error):
        def full(*_):
            raise error

        shard = tiny()
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "store", full)
            (answer,) = shard.answer(ask(), "alice")
        assert_update(answer, ask(), 0.125)
        (refused,) = tiny(policy=replace_policy(POLICY, lost_replies="refuse")).answer(
            ask(), "alice"
        )
        assert type(refusal_of(refused)) is Replay
        assert shard.charges() == {"a": 1}
        assert shard.answer(ask(), "alice") != [answer]
        assert shard.charges() == {"a": 2}

    def test_a_disk_that_takes_no_charge_refuses(self, tiny, monkeypatch):
        def full(*_):
            raise sqlite3.OperationalError("disk is full")

        monkeypatch.setattr(Ledger, "_append", full)
        shard = tiny()
        assert shard.answer(ask()) == [encode_refusal(LedgerUnavailable(""))] * 3
        assert (shard.reads, shard.charges()) == ([], {})

    def test_a_seeded_reply_that_was_lost_is_computed_anew_at_no_charge(self, tiny):
        def seeded():
            def noise(client_id, server_round):
                return SeededNoise(SeedStream(1).generator("noise", server_round, client_id))

            return tiny(noise=noise, seeded=True)

        seeded().answer(ask(1))
        before = seeded().answer(ask(2))
        with sqlite3.connect(seeded().folder / REPLIES) as replies:
            replies.execute("DELETE FROM replies WHERE client = 'bob'")
        assert seeded().answer(ask(2)) == before
        assert seeded().charges() == {"a": 2, "b1": 2, "b2": 2, "c": 2}

    def test_noting_a_failure_never_fails(self, tmp_path):
        (tmp_path / FAILURES).mkdir()
        for folder in (tmp_path, tmp_path / "gone"):
            try:
                raise ValueError("first")
            except ValueError:
                note_failure(folder)
        assert list(tmp_path.iterdir()) == [tmp_path / FAILURES]


# -- GS-WGAN, and what a hostile server may ask of it

BATCH = 4
SPEC = DataSpec((1, 28, 28), 10)
GS_WGAN = Config.from_table({"batch-size": BATCH, "critic-width": 8, "critic-steps": 1})
GS_EVENT = Event(rows=BATCH, numbers=784, clipping_bound=1.0, noise_stddev=2.14)
GS_POLICY = Policy(max_epsilon=100.0)


@pytest.fixture(scope="module")
def gs_wgan(tmp_path_factory):
    """A shard that the hostile requests of this module leave untouched."""
    client = GS_WGAN.algorithm.Client(GS_WGAN.own, SPEC)
    return Shard(tmp_path_factory.mktemp("gs") / "shard", client, GS_POLICY, "gs-wgan")


def samples(*shape, value=0.5):
    return np.full(shape or (BATCH, 1, 28, 28), value, np.float32)


def ask_gs_wgan(server_round=1, tensors=None, **fields):
    given = {"samples": samples(), "labels": np.arange(BATCH)} | (tensors or {})
    fixed = {"experiment_id": "e", "algorithm": "gs-wgan", "event": GS_EVENT}
    unit = frozenset({"samples"})
    return Request(server_round=server_round, tensors=given, unit_range=unit, **fixed | fields)


def test_gs_wgan_answers_as_its_client_and_the_mechanism_say(tmp_path):
    """The slow reference: each update on its own, then the mechanism with the same noise."""

    def noise(client_id, server_round):
        return SeededNoise(SeedStream(7).generator("noise", server_round, client_id))

    client = GS_WGAN.algorithm.Client(GS_WGAN.own, SPEC)
    shard = Shard(tmp_path / "shard", client, GS_POLICY, "gs-wgan", noise=noise)
    states = dict.fromkeys(USERS)
    for server_round in (1, 2):
        request = ask_gs_wgan(server_round)
        answers = shard.answer(request)
        for view, answer in zip(shard.views(USERS), answers, strict=True):
            view.state = states[view.client_id]
            update = client.update(request, view)
            states[view.client_id] = update.state
            source = noise(view.client_id, server_round)
            expected = privatize(update.rows_RN, update.extra_E, GS_EVENT, source)
            assert decode_release(answer, request).tolist() == expected.tolist()
    assert shard.charges() == {"a": 2, "b1": 2, "b2": 2, "c": 2}
    assert not (shard.folder / FAILURES).exists()


def test_the_noise_is_secure_and_fewer_bits_are_the_same_release(tmp_path):
    client = GS_WGAN.algorithm.Client(GS_WGAN.own, SPEC)
    steps = []
    for name in ("one", "two"):  # twice the same data, seeds and request: the noise differs
        shard = Shard(tmp_path / name, client, GS_POLICY, "gs-wgan")
        steps.append(decode_release(shard.answer(ask_gs_wgan(), "bob")[0], ask_gs_wgan()))
    size = GS_EVENT.size
    deviation = np.std((steps[0] - steps[1]) * grid_step(GS_EVENT))
    assert deviation == pytest.approx(2.14 * 2**0.5, rel=6 / (2 * size) ** 0.5)

    coarse = ask_gs_wgan(uplink_bits=4, downlink_bits=32)
    (answer,) = shard.answer(coarse, "bob")
    levels = release_levels(coarse)
    assert decode_release(answer, coarse).tolist() == levels.value(levels.index(steps[1])).tolist()
    assert len(answer) == 1 + size // 2
    assert shard.charges() == {"b1": 1, "b2": 1}


def event(**fields):
    return ask_gs_wgan(event=replace(GS_EVENT, **fields))


def tensor(**tensors):
    return ask_gs_wgan(tensors={name: value for name, value in tensors.items()})


def spoiled(value):
    changed = samples()
    changed[1, 0, 2, 3] = value
    return tensor(samples=changed)


def written(change):
    """A request whose header was changed after it was written."""
    content = load(ask_gs_wgan().encode())
    header = json.loads(content["header"].tobytes())
    change(header)
    text = json.dumps(header).encode()
    return save({**content, "header": np.frombuffer(text, np.uint8)})


def header(**fields):
    return written(lambda found: found.update(fields))


def header_event(**fields):
    return written(lambda found: found["event"].update(fields))


class Touch:
    """What a pickle would run."""

    def __reduce__(self):
        return (os.mkdir, ("/tmp/fed-gswgan-unpickled",))


HONEST = ask_gs_wgan().encode()
HOSTILE = {
    # more than the owner allows
    "another algorithm": (ask_gs_wgan(algorithm="fedavg-gan"), "algorithm=fedavg-gan must be"),
    "a plug-in": (ask_gs_wgan(algorithm="os:system"), "algorithm=os:system must be gs-wgan"),
    "a larger bound": (event(clipping_bound=1.0000001), "clipping-bound=1 must be <= max-"),
    "less noise": (event(noise_stddev=2.13), "noise-stddev=2.13 must be >= min-noise-stddev=2.14"),
    "hardly any noise": (event(noise_stddev=1e-8), "noise-stddev=1e-08"),
    "a smaller bound's noise": (event(clipping_bound=0.1, noise_stddev=0.214), "noise-stddev"),
    "central trust": (event(trust="central"), "trust=central must be one of local"),
    "a server that sums": (
        ask_gs_wgan(event=replace(GS_EVENT, trust="secure-aggregation", honest=9), modulus_bits=30),
        "trust=secure-aggregation must be one of local",
    ),
    "too many rows": (event(rows=33), "rows=33 must be <= max-rows=32"),
    # what no server of this algorithm sends
    "another number of rows": (event(rows=BATCH + 1), "release of"),
    "another row": (event(numbers=783), "release of"),
    "extra numbers": (event(extra=1), "release of"),
    "another bound": (event(bounded="message"), "release of"),
    "fewer samples": (tensor(samples=samples(3, 1, 28, 28)), "samples is float32 of"),
    "flat samples": (tensor(samples=samples(BATCH, 784)), "samples is float32 of"),
    "no samples": (tensor(samples=samples(0, 1, 28, 28)), "samples is float32 of"),
    "a sample above 1": (spoiled(1.0000001), r"samples must lie in \[0, 1\]"),
    "a sample below 0": (spoiled(-1e-30), r"samples must lie in \[0, 1\]"),
    "NaN": (spoiled(np.nan), "not finite"),
    "infinity": (spoiled(np.inf), "not finite"),
    "a label above": (tensor(labels=np.array([0, 1, 2, 10])), r"labels must lie in \[0, 9\]"),
    "a label below": (tensor(labels=np.array([0, 1, 2, -1])), r"labels must lie in \[0, 9\]"),
    "labels of another type": (tensor(labels=samples(BATCH)), "labels is float32"),
    "another tensor": (tensor(seeds=np.arange(3)), "tensors must be samples, labels"),
    "a scalar": (ask_gs_wgan(scalars={"steps": 10**6}), "no scalars"),
    # what is no request
    "nothing": (b"", ""),
    "random bytes": (np.random.default_rng(0).bytes(4096), ""),
    "half a request": (HONEST[: len(HONEST) // 2], ""),
    "a request and more": (HONEST + b"more", ""),
    "a pickle": (pickle.dumps(Touch()), ""),
    "a promise of much memory": (b"\xff" * 7 + b"\x7f" + HONEST[8:], ""),
    "no header": (save({"tensor/samples": samples()}), ""),
    "another version": (header(version=1), "version"),
    "round 0": (header(server_round=0), "server-round"),
    "a round as text": (header(server_round="1"), "server-round"),
    "a round beyond": (header(server_round=2**41), "server-round"),
    "a checkpoint to come": (header(oldest_round=2), "oldest-round"),
    "bits that are none": (header(uplink_bits=3), "uplink-bits"),
    "a modulus": (header(modulus_bits=20), "modulus-bits"),
    "a switch": (header(skip_clipping=True), "skip-clipping"),
    "a name that is too long": (header(experiment_id="x" * 65), "experiment-id"),
    "a name that is not printable": (header(experiment_id="a\0b"), "experiment-id"),
    "an unnamed tensor": (written(lambda h: h["tensors"].pop("labels")), "tensors"),
    "a shape beyond": (
        written(lambda h: h["tensors"]["samples"].update(shape=[2**28, 2**28])),
        "samples",
    ),
    "a bomb": (written(lambda h: h["tensors"]["samples"].update(bits=1, shape=[2**27])), "samples"),
    "no noise": (header_event(noise_stddev=0.0), "event.noise-stddev"),
    "noise that is no number": (header_event(noise_stddev=math.nan), ""),
    "endless noise": (header_event(noise_stddev=math.inf), ""),
    "a bound of nothing": (header_event(clipping_bound=0.0), "event.clipping-bound"),
    "no clipping": (header_event(bounded="none"), "event.bounded"),
    "an honest crowd": (header_event(honest=10**6), "event"),
    "another trust": (header_event(trust="paper"), "event.trust"),
    "a seed for the noise": (header_event(noise_source="seeded"), "event.noise-source"),
    "rows without end": (header_event(rows=10**400), "event"),
}  # fmt: skip
EXCEEDING = list(HOSTILE)[:9]


def assert_refused(shard, answers, before, kind, said):
    """Every client gets the same refusal; nothing was charged, read, failed or run."""
    assert len(answers) == len(USERS)
    assert len(set(answers)) == 1
    refusal = refusal_of(answers[0])
    assert type(refusal) is kind
    assert refusal.limit
    assert re.search(said, refusal.limit)
    assert (shard.files(), shard.reads) == (before, [])
    assert not (shard.folder / FAILURES).exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_uncharged_and_unread(gs_wgan, name):
    request, said = HOSTILE[name]
    before = gs_wgan.files()
    kind = RequestExceedsPolicy if name in EXCEEDING else MalformedInput
    assert_refused(gs_wgan, gs_wgan.answer(request), before, kind, said)


@pytest.mark.parametrize(
    ("accepted", "asked", "modulus_bits", "said"),
    [
        ("central", {"trust": "central"}, 0, "trust=central needs the owner's central-noise"),
        ("secure-aggregation", {"trust": "secure-aggregation", "honest": 2}, 30, "ideal form"),
        ("secure-aggregation", {"trust": "secure-aggregation"}, 30, "honest=1 must be >= min-"),
    ],
)
def test_a_trust_model_that_is_accepted_still_needs_its_promises(
    gs_wgan, accepted, asked, modulus_bits, said
):
    policy = replace_policy(GS_POLICY, trust=("local", accepted))
    shard = Shard(gs_wgan.folder, gs_wgan.guard.client, policy, "gs-wgan")
    before = shard.files()
    request = ask_gs_wgan(event=replace(GS_EVENT, **asked), modulus_bits=modulus_bits)
    assert_refused(shard, shard.answer(request), before, RequestExceedsPolicy, said)


def test_a_client_that_is_named_twice_is_not_answered_twice(gs_wgan):
    before = gs_wgan.files()
    answers = gs_wgan.answer(ask_gs_wgan(), "alice", "bob", "alice")
    assert_refused(gs_wgan, answers, before, MalformedInput, "named twice")


def test_a_request_with_flipped_bits_is_refused_or_charged(tmp_path):
    client = GS_WGAN.algorithm.Client(GS_WGAN.own, SPEC)
    shard = Shard(tmp_path / "shard", client, Policy(max_epsilon=math.inf), "gs-wgan")
    random, kinds = np.random.default_rng(0), set()
    header = HONEST.index(b'{"version"')
    for first, count in [(0, 40), (0, len(HONEST))] + [(header, len(HONEST) - header)] * 2:
        for _ in range(30):
            blob = bytearray(HONEST)
            blob[first + random.integers(count)] ^= 1 << random.integers(8)
            charged = shard.charges().get("a", 0)
            (answer,) = shard.answer(bytes(blob), "alice")
            if answer[:1] == b"\x00":
                kinds.add("answered")
                assert shard.charges()["a"] == charged + 1
            else:
                kinds.add("refused")
                assert isinstance(refusal_of(answer), MalformedInput)
                assert shard.charges().get("a", 0) == charged
    assert kinds == {"answered", "refused"}
    assert not (shard.folder / FAILURES).exists()

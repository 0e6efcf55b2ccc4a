"""Promises of the guard, with an algorithm small enough to check by hand, and with GS-WGAN."""

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
from fed_gswgan.device.guard import FAILURES, LARGEST_FAILURES_BYTES, NOISE_ALONE, Guard
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger, owners_hash
from fed_gswgan.privacy.mechanism import Event, grid_step, privatize
from fed_gswgan.privacy.noise import NoiseSource, SeededNoise
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    LedgerUnavailable,
    MalformedInput,
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


DISK_FULL = sqlite3.OperationalError("database or disk is full")


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
        self.folder, self.reads = folder, []
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


def seeded_noise(client_id, server_round):
    return SeededNoise(SeedStream(7).generator("noise", server_round, client_id))


@pytest.fixture
def tiny(tmp_path):
    """Return a function that builds a shard over one folder, again and again."""

    def make(client=None, policy=POLICY, **guard):
        return Shard(tmp_path / "shard", client or TinyClient(), policy, **guard)

    return make


def ask(server_round=1, **fields):
    given = {"experiment_id": "e", "algorithm": "tiny", "event": EVENT, "scalars": {"factor": 2.0}}
    return Request(server_round=server_round, **given | fields)


def refusal_of(answer):
    with pytest.raises(Refusal) as found:
        decode_release(answer, ask())
    return found.value


def assert_updates(answers, request, brightness, rounds=(0, 0, 0)):
    """Each row shows a brightness, and the extra number the rounds that were remembered."""
    assert len(answers) == len(brightness)
    for answer, value, number in zip(answers, brightness, rounds, strict=False):
        numbers = decode_release(answer, request) * grid_step(request.event)
        assert numbers == pytest.approx([value] * 6 + [number / 10], abs=1e-4)


def with_limits(policy, **limits):
    return policy.model_copy(update=limits)


class TestAnswers:
    def test_each_client_answers_from_its_data_and_state(self, tiny):
        shard = tiny()
        assert_updates(shard.answer(ask(1)), ask(1), (0.125, 0.25, 0.5))
        assert shard.charges() == {"a": 1, "b1": 1, "b2": 1, "c": 1}
        assert_updates(shard.answer(ask(2), "bob"), ask(2), [0.25], rounds=[1])
        assert shard.charges() == {"a": 1, "b1": 2, "b2": 2, "c": 1}
        other = ask(2, experiment_id="another run")
        assert_updates(shard.answer(other, "bob"), other, [0.25])

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
        event = replace(EVENT, trust="central", noise_stddev=1e3)
        request = ask(event=event)
        shard = tiny(policy=with_limits(POLICY, trust=("central",), central_noise_stddev=50.0))
        (answer,) = shard.answer(request, "bob")
        steps = decode_release(answer, request)
        assert steps.tolist() == [0.25 / grid_step(event)] * 6 + [0]
        with Ledger(shard.folder) as ledger:
            (charged,) = ledger.releases(["b1"])["b1"]
        assert charged == replace(event, noise_stddev=50.0)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


class Silent(NoiseSource):
    """A broken source, which adds nothing."""

    def draw(self, values, stddev, step):
        return np.rint(values / step).astype(np.int64)


FAULTS = {  # the refusal, whose attribute is broken (None: the guard's), and how
    "other users": (LedgerUnavailable, None, "owners", owners_hash({"carol": ("a",)})),
    "a full disk": (LedgerUnavailable, Ledger, "_append", raising(DISK_FULL)),
    "no randomness": (RngUnavailable, secrets, "token_bytes", raising(OSError("no entropy"))),
    "the same bytes again": (RngUnavailable, secrets, "token_bytes", bytes),
}


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "limit", "value"),
        [
            (TooManyParticipations, "max-participations", 1),
            (BudgetExhausted, "max-epsilon", 5.0),
            (MinSeparation, "min-separation-rounds", 4),
            (MinSeparation, "min-separation-seconds", 9e9),
        ],
    )
    def test_a_limit_refuses_by_code_before_the_data_is_read(self, tiny, kind, limit, value):
        """Who has room is answered beside who has none, and the refusal tells only the limit."""
        tiny().answer(ask(1), "alice", "carol")
        shard = tiny(policy=with_limits(POLICY, **{limit.replace("-", "_"): value}))
        answers = shard.answer(ask(2))
        limit = {"code": kind.code, "limit": f"{limit}={value:g}"}
        expected = b"\x01" + json.dumps(limit).encode()
        assert (answers[0], answers[2]) == (expected, expected)
        if kind is BudgetExhausted:  # one release of so little noise is too many for anybody
            assert answers[1] == expected
        else:
            assert_updates(answers[1:2], ask(2), [0.25])
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
            lambda f: [shutil.copy(f.parent / "old" / name, f) for name in (LEDGER, HEAD)],
        ],
        ids=["no ledger", "no head", "no replies", "cut", "another head", "older"],
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

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_before_the_charge_refuses(self, tiny, monkeypatch, fault):
        shard, (kind, place, name, broken) = tiny(), FAULTS[fault]
        with monkeypatch.context() as patch:
            patch.setattr(place or shard.guard, name, broken)
            answers = shard.answer(ask())
        assert [refusal_of(answer).code for answer in answers] == [kind.code] * 3
        assert (shard.reads, shard.charges()) == ([], {})


class Failing(TinyClient):
    """Bob's part fails, in one of many ways, in the second round."""

    def __init__(self, way):
        self.way = way

    def update(self, request, client):
        made = super().update(request, client)
        if client.client_id != "bob" or request.server_round != 2:
            return made
        if isinstance(self.way, Exception):
            raise self.way
        return {
            "no update": None,
            "no numbers": Update(np.full((2, 3), "x"), np.zeros(1)),
            "no state": made._replace(state={"rounds": np.array("x")}),
        }.get(self.way, made._replace(rows_RN=made.rows_RN[:1]))


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
        return made[:1] if self.way == "too few" and request.server_round == 2 else made


class TestFailures:
    @pytest.mark.parametrize("kind", [Failing, FailingTogether])
    @pytest.mark.parametrize(
        "way",
        [RuntimeError("secret"), MemoryError(), "no update", "no numbers", "no state", "shape"],
    )
    def test_a_failure_is_answered_with_noise_alone_and_charged(self, tiny, kind, way):
        """Clients of the same batch are unaffected, and the failed one keeps its state."""
        shard = tiny(kind(way))
        shard.answer(ask(1))
        assert_updates(shard.answer(ask(2)), ask(2), (0.125, 0.0, 0.5), rounds=(1, 0, 1))
        assert shard.charges() == {"a": 2, "b1": 2, "b2": 2, "c": 2}
        log = shard.folder / FAILURES
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert "Traceback" in log.read_text()
        named = [line.split() for line in log.read_text().splitlines() if NOISE_ALONE in line]
        assert {tuple(words[-2:]) for words in named} == {("2", "bob")}
        assert_updates(shard.answer(ask(3)), ask(3), (0.125, 0.25, 0.5), rounds=(2, 1, 2))

    def test_a_server_that_makes_it_fail_again_and_again_fills_no_disk(self, tiny):
        shard = tiny(Failing(RuntimeError("x" * (LARGEST_FAILURES_BYTES // 2))))
        for run in range(9):
            shard.answer(ask(2, experiment_id=f"run {run}"), "bob")
        assert (shard.folder / FAILURES).stat().st_size < 3 * LARGEST_FAILURES_BYTES

    @pytest.mark.parametrize("way", ["all", "too few"])
    def test_a_batch_that_fails_is_answered_with_noise_alone(self, tiny, way):
        shard = tiny(FailingTogether(way))
        shard.answer(ask(1))
        assert_updates(shard.answer(ask(2))[1:], ask(2), (0, 0))
        unread = shard.answer(ask(3), read=raising(OSError("the data is gone")))
        assert_updates(unread, ask(3), (0, 0, 0))
        assert shard.charges() == {"a": 3, "b1": 3, "b2": 3, "c": 3}

    def test_a_damaged_state_costs_its_client_alone_what_it_remembers(self, tiny):
        shard = tiny()
        shard.answer(ask(1))
        with sqlite3.connect(shard.folder / REPLIES) as replies:
            replies.execute("UPDATE states SET state = 'x' WHERE client = 'bob'")
        assert_updates(shard.answer(ask(2)), ask(2), (0.125, 0.25, 0.5), rounds=(1, 0, 1))

    def test_a_full_disk_keeps_no_reply_and_answers(self, tiny, monkeypatch):
        shard = tiny()
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "store", raising(DISK_FULL))
            (answer,) = shard.answer(ask(), "alice")
        assert_updates([answer], ask(), [0.125])
        careful = tiny(policy=with_limits(POLICY, lost_replies="refuse"))
        assert type(refusal_of(careful.answer(ask(), "alice")[0])) is Replay
        assert shard.charges() == {"a": 1}
        assert shard.answer(ask(), "alice") != [answer]
        assert shard.charges() == {"a": 2}

    def test_a_seeded_reply_that_was_lost_is_computed_anew_at_no_charge(self, tiny):
        shard = tiny(noise=seeded_noise, seeded=True)
        shard.answer(ask(1))
        before = shard.answer(ask(2))
        with sqlite3.connect(shard.folder / REPLIES) as replies:
            replies.execute("DELETE FROM replies WHERE client = 'bob'")
        assert shard.answer(ask(2)) == before
        assert shard.charges() == {"a": 2, "b1": 2, "b2": 2, "c": 2}


# -- GS-WGAN, and what a hostile server may ask of it

BATCH = 4
SPEC = DataSpec((1, 28, 28), 10)
GS_WGAN = Config.from_table(
    {"critic": "mlp", "batch-size": BATCH, "critic-width": 8, "critic-steps": 1}
)
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
    client = GS_WGAN.algorithm.Client(GS_WGAN.own, SPEC)
    shard = Shard(tmp_path / "shard", client, GS_POLICY, "gs-wgan", noise=seeded_noise)
    states = dict.fromkeys(USERS)
    for server_round in (1, 2):
        request = ask_gs_wgan(server_round)
        answers = shard.answer(request)
        for view, answer in zip(shard.views(USERS), answers, strict=True):
            view.state = states[view.client_id]
            update = client.update(request, view)
            states[view.client_id] = update.state
            source = seeded_noise(view.client_id, server_round)
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
    changed = replace(GS_EVENT, **fields)
    modulus_bits = 30 if changed.trust == "secure-aggregation" else 0
    return ask_gs_wgan(event=changed, modulus_bits=modulus_bits)


def tensor(**tensors):
    return ask_gs_wgan(tensors=tensors)


def spoiled(value):
    changed = samples()
    changed[1, 0, 2, 3] = value
    return tensor(samples=changed)


def written(part=(), **fields):
    """A request with other fields in its header, or in a part of it, after it was written."""
    content = load(ask_gs_wgan().encode())
    header = place = json.loads(content["header"].tobytes())
    for name in part:
        place = place[name]
    place.update(fields)
    return save({**content, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})


class Touch:
    """What a pickle would run."""

    def __reduce__(self):
        return (os.mkdir, ("/tmp/fed-gswgan-unpickled",))


HONEST = ask_gs_wgan().encode()
HOSTILE = {
    # more than the owner allows
    "another algorithm": (ask_gs_wgan(algorithm="fedavg-gan"), "algorithm=fedavg-gan must be"),
    "a larger bound": (event(clipping_bound=1.0000001), "clipping-bound=1 must be <= max-"),
    "less noise": (event(noise_stddev=2.13), "noise-stddev=2.13 must be >= min-noise-stddev=2.14"),
    "a smaller bound's noise": (event(clipping_bound=0.1, noise_stddev=0.214), "noise-stddev"),
    "central trust": (event(trust="central"), "trust=central must be one of local"),
    "a server that sums": (event(trust="secure-aggregation"), "trust=secure-aggregation must be"),
    "too many rows": (event(rows=33), "rows=33 must be <= max-rows=32"),
    # what no server of this algorithm sends
    "another number of rows": (event(rows=BATCH + 1), "release of"),
    "another row": (event(numbers=783), "release of"),
    "another bound": (event(bounded="message"), "release of"),
    "fewer samples": (tensor(samples=samples(3, 1, 28, 28)), "samples is float32 of"),
    "no samples": (tensor(samples=samples(0, 1, 28, 28)), "samples is float32 of"),
    "a sample above 1": (spoiled(1.0000001), r"samples must lie in \[0, 1\]"),
    "a sample below 0": (spoiled(-1e-30), r"samples must lie in \[0, 1\]"),
    "NaN": (spoiled(np.nan), "not finite"),
    "a label above": (tensor(labels=np.array([0, 1, 2, 10])), r"labels must lie in \[0, 9\]"),
    "a label below": (tensor(labels=np.array([0, 1, 2, -1])), r"labels must lie in \[0, 9\]"),
    "labels of another type": (tensor(labels=samples(BATCH)), "labels is float32"),
    "another tensor": (tensor(seeds=np.arange(3)), "tensors must be samples, labels"),
    "a scalar": (ask_gs_wgan(scalars={"steps": 10**6}), "no scalars"),
    # what is no request
    "nothing": (b"", ""),
    "random bytes": (np.random.default_rng(0).bytes(4096), ""),
    "a pickle": (pickle.dumps(Touch()), ""),
    "a promise of much memory": (b"\xff" * 7 + b"\x7f" + HONEST[8:], ""),
    "round 0": (written(server_round=0), "server-round"),
    "a switch": (written(skip_clipping=True), "skip-clipping"),
    "a shape beyond": (written(["tensors", "samples"], shape=[2**28, 2**28]), "samples"),
    "noise that is no number": (written(["event"], noise_stddev=math.nan), ""),
    "a seed for the noise": (written(["event"], noise_source="seeded"), "event.noise-source"),
}  # fmt: skip
EXCEEDING = list(HOSTILE)[:7]


def assert_refused(shard, answers, before, kind, said):
    """Every client gets the same refusal; nothing was charged, read, failed or run."""
    assert answers == [answers[0]] * len(USERS)
    refusal = refusal_of(answers[0])
    assert type(refusal) is kind
    assert re.search(said or ".", refusal.limit)
    assert (shard.files(), shard.reads) == (before, [])
    assert not (shard.folder / FAILURES).exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_uncharged_and_unread(gs_wgan, name):
    request, said = HOSTILE[name]
    before = gs_wgan.files()
    kind = RequestExceedsPolicy if name in EXCEEDING else MalformedInput
    assert_refused(gs_wgan, gs_wgan.answer(request), before, kind, said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"trust": "central"}, "trust=central needs the owner's central-noise-stddev"),
        ({"trust": "secure-aggregation", "honest": 2}, "ideal form is for simulations"),
        ({"trust": "secure-aggregation"}, "honest=1 must be >= min-honest=2"),
    ],
)
def test_a_trust_model_that_is_accepted_still_needs_its_promises(gs_wgan, asked, said):
    policy = with_limits(GS_POLICY, trust=("local", asked["trust"]))
    shard = Shard(gs_wgan.folder, gs_wgan.guard.client, policy, "gs-wgan")
    before = shard.files()
    assert_refused(shard, shard.answer(event(**asked)), before, RequestExceedsPolicy, said)


def test_a_client_that_is_named_twice_is_not_answered_twice(gs_wgan):
    before = gs_wgan.files()
    answers = gs_wgan.answer(ask_gs_wgan(), "alice", "bob", "alice")
    assert_refused(gs_wgan, answers, before, MalformedInput, "named twice")

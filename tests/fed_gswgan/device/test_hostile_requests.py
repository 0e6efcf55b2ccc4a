import hashlib
import os
import shutil
import time
import tracemalloc
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fed_gswgan.device import guard as guard_module
from fed_gswgan.device import private_client
from fed_gswgan.privacy import noise_source, refusals, selftest
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    MalformedInput,
    Refusal,
    RequestExceedsPolicy,
)
from fed_gswgan.wire.messages import TrainReply, TrainRequest
from tests.fed_gswgan.device.attacked_device import USERS, AttackedDevice
from tests.fed_gswgan.device.hostile_requests import ALLOWED, ATTACKS, both, honest_request

GENERATED = 10_000
VARIANTS = 20
LONGEST_REFUSAL = 300
REFUSED = [name for name, attack in ATTACKS.items() if attack.refusal]
ANSWERED = [name for name, attack in ATTACKS.items() if not attack.refusal]

# mu = 2 x 2 / 16 = 0.25 a reply, so three spend 0.433 and four 0.5.
QUARTER = {"clipping": "sample", "clipping_bound": 1.0, "noise_stddev": 16.0}
THREE_REPLIES = replace(ALLOWED, max_epsilon=gaussian_epsilon(0.47, 1e-5))


def request_of(server_round=1, samples=4, **fields):
    """A request that every device here allows unless it says otherwise."""
    return TrainRequest(
        **QUARTER
        | {
            "experiment_id": "experiment",
            "server_round": server_round,
            "checkpoint_round": 0,
            "samples_BCHW": np.full((samples, 1, 28, 28), 0.5, np.float32),
            "labels_B": np.zeros(samples, np.int64),
            "critic_samples_NBCHW": np.empty((0, samples, 1, 28, 28), np.float32),
            "critic_labels_NB": np.empty((0, samples), np.int64),
        }
        | fields
    )


def variants(name):
    for seed in range(VARIANTS):
        random = np.random.default_rng(seed)
        yield ATTACKS[name].change(honest_request(random), random)


def outcome_of(device, request):
    """The reply or the refusal; anything else that is raised goes on to fail the test."""
    try:
        return device.guard.answer(request)
    except Refusal as refusal:
        return refusal


def released(reply, request):
    """The bytes of a reply, which is of the shape and the round that were asked for."""
    assert type(reply) is TrainReply
    assert vars(reply).keys() == {"server_round", "gradient"}
    assert reply.server_round == request.server_round
    values_BCHW = reply.gradient.values_BCHW
    assert (values_BCHW.dtype, values_BCHW.shape) == (np.float32, request.reply_shape())
    assert np.isfinite(values_BCHW).all()
    return values_BCHW.tobytes()


def asked(request):
    """What the request is charged for, in the words of the ledger."""
    fields = ("clipping", "clipping_bound", "noise_stddev")
    return {name: getattr(request, name) for name in fields} | {
        "samples": len(request.samples_BCHW),
        "noise_added_by": "device",
    }


@pytest.fixture
def make_device(tmp_path):
    """Build a device over one folder, again and again."""
    return lambda policy=ALLOWED: AttackedDevice(tmp_path / "client", policy)


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_not_allowed_is_refused_by_name_unread_and_uncharged(make_device, name):
    device = make_device()
    before = device.files()
    for request in variants(name):
        refusal = outcome_of(device, request)
        assert type(refusal) is ATTACKS[name].refusal
        assert len(str(refusal)) < LONGEST_REFUSAL
    assert device.files() == before
    assert device.data_reads() == 0


@pytest.mark.parametrize("name", REFUSED)
def test_to_refuse_takes_no_memory_however_much_is_asked(make_device, name):
    device, requests = make_device(), list(variants(name))
    tracemalloc.start()
    try:
        for request in requests:
            outcome_of(device, request)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ANSWERED)
def test_a_request_that_is_allowed_is_answered_and_charged_as_asked(make_device, name):
    device = make_device()
    for number, request in enumerate(list(variants(name))[:5], start=1):
        released(device.guard.answer(request), request)
        assert len(device.charges()) == number
        assert device.charges()[-1] == asked(request)
    assert "failures.log" not in device.files()


class TestMoreRounds:
    def test_the_budget_ends_them(self, make_device):
        device = make_device(THREE_REPLIES)
        outcomes = [outcome_of(device, request_of(number)) for number in range(1, 31)]
        assert [type(o) for o in outcomes] == [TrainReply] * 3 + [BudgetExhausted] * 27
        assert len(device.charges()) == 3
        assert 0.1 < device.share_of_delta() <= 1

    def test_another_experiment_model_or_device_start_has_the_same_budget(self, make_device):
        for number, experiment_id in enumerate(["a", "b", "c"], start=1):
            make_device(THREE_REPLIES).guard.answer(request_of(1, experiment_id=experiment_id))
            assert len(make_device(THREE_REPLIES).charges()) == number
        with pytest.raises(BudgetExhausted):
            make_device(THREE_REPLIES).guard.answer(request_of(1, experiment_id="d"))

    def test_participations_end_them(self, make_device):
        device = make_device(replace(ALLOWED, max_participations=2))
        outcomes = [outcome_of(device, request_of(number)) for number in (1, 2, 3, 4)]
        names = [o.name for o in outcomes if isinstance(o, Refusal)]
        assert names == ["TOO_MANY_PARTICIPATIONS"] * 2
        assert len(device.charges()) == 2

    @pytest.mark.parametrize(
        ("second", "refused"), [(12, True), (8, True), (13, False), (7, False)]
    )
    def test_rounds_closer_than_allowed_are_refused_forward_and_back(
        self, make_device, second, refused
    ):
        device = make_device(replace(ALLOWED, min_separation_rounds=3))
        device.guard.answer(request_of(10))
        outcome = outcome_of(device, request_of(second))
        assert (getattr(outcome, "name", None) == "MIN_SEPARATION") is refused
        assert len(device.charges()) == 1 + (not refused)


class TestLargerBatches:
    @pytest.mark.parametrize(("clipping", "times"), [("message", 1), ("sample", 8)])
    def test_rows_cost_unless_the_reply_is_clipped_as_a_whole(self, make_device, clipping, times):
        device = make_device()
        device.guard.answer(request_of(1, samples=1, clipping=clipping))
        one_row = device.squared_mu()
        device.guard.answer(request_of(2, samples=8, clipping=clipping))
        assert device.squared_mu() - one_row == times * one_row > 0


class TestOtherClips:
    def test_rows_clipped_each_are_refused_where_the_reply_must_be_clipped(self, make_device):
        device = make_device(replace(ALLOWED, clipping="message"))
        refusal = outcome_of(device, request_of(1, clipping="sample"))
        assert refusal.name == "REQUEST_EXCEEDS_POLICY"
        released(device.guard.answer(request_of(1, clipping="message")), request_of(1))
        assert [charge["clipping"] for charge in device.charges()] == ["message"]

    def test_noise_shrinks_with_the_bound_and_never_further(self, make_device):
        request = request_of(1, samples=8, clipping_bound=1e-3)
        reply = make_device().guard.answer(request)
        noise = np.frombuffer(released(reply, request), np.float32)
        # 6272 draws of deviation 0.016; six deviations of their standard deviation.
        assert noise.std() == pytest.approx(0.016, rel=6 / np.sqrt(2 * noise.size))


class TestReplays:
    def test_kept_bytes_are_returned_unread_and_uncharged(self, make_device):
        first = released(make_device().guard.answer(request_of(1)), request_of(1))
        device = make_device()
        for _ in range(3):
            assert released(device.guard.answer(request_of(1)), request_of(1)) == first
        assert device.data_reads() == 0
        assert len(device.charges()) == 1

    def test_bytes_that_are_gone_are_charged_again_and_fresh(self, make_device):
        device = make_device()
        first = released(device.guard.answer(request_of(1)), request_of(1))
        for path in device.folder.glob("critic-*"):
            shutil.rmtree(path)
        assert released(device.guard.answer(request_of(1)), request_of(1)) != first
        assert len(device.charges()) == 2

    def test_or_refused_where_the_policy_says_so(self, make_device):
        device = make_device(replace(ALLOWED, lost_replies="refuse"))
        device.guard.answer(request_of(1))
        for path in device.folder.glob("critic-*"):
            shutil.rmtree(path)
        assert outcome_of(device, request_of(1)).name == "REPLAY"
        assert len(device.charges()) == 1

    def test_the_same_samples_for_a_bit_more_noise_are_another_release(self, make_device):
        """Two replies to nearly the same request would average the noise out, for free."""
        device = make_device()
        first = released(device.guard.answer(request_of(1)), request_of(1))
        nearly = request_of(1, noise_stddev=np.nextafter(16.0, 17.0).item())
        assert released(device.guard.answer(nearly), nearly) != first
        assert len(device.charges()) == 2


class TestRollbacks:
    @pytest.mark.parametrize("damage", ["missing", "no head", "cut", "older", "edited"])
    def test_a_ledger_that_is_not_whole_counts_as_exhausted(self, make_device, damage):
        device = make_device()
        ledger, head = (device.folder / f"ledger.{kind}" for kind in ("jsonl", "head"))
        device.guard.answer(request_of(1))
        older = ledger.read_bytes()
        device.guard.answer(request_of(2))
        match damage:
            case "missing":
                ledger.unlink()
            case "no head":
                head.unlink()
            case "cut":
                os.truncate(ledger, ledger.stat().st_size - 1)
            case "older":
                ledger.write_bytes(older)
            case "edited":
                ledger.write_bytes(ledger.read_bytes().replace(b"16.0", b"99.0"))
        reopened = make_device()
        before = reopened.files()
        assert outcome_of(reopened, request_of(3)).name == "LEDGER_UNAVAILABLE"
        assert reopened.data_reads() == 0
        assert reopened.files() == before

    def test_a_clock_that_went_back_gives_no_earlier_answer(self, make_device):
        policy = replace(ALLOWED, min_separation_seconds=60.0)
        device = make_device(policy)
        tomorrow = Ledger(
            device.folder / "ledger.jsonl", USERS, policy, lambda: time.time() + 86_400
        )
        event = SanitizedGradientEvent(samples=1, **QUARTER)
        tomorrow.reserve(ReleaseKey("experiment", 1, "0" * 64), event)
        assert outcome_of(device, request_of(2)).name == "MIN_SEPARATION"
        assert len(device.charges()) == 1
        assert device.data_reads() == 0


class TestBrokenMachines:
    def refused(self, device, name):
        before = device.files()
        assert outcome_of(device, request_of(1)).name == name
        assert device.files() == before | {"answering.lock": b""}
        assert (device.data_reads(), device.charges()) == (0, [])

    def test_no_random_bits_no_reply(self, make_device, monkeypatch):
        def no_bits(count):
            raise OSError("no entropy")

        monkeypatch.setattr(noise_source.secrets, "token_bytes", no_bits)
        self.refused(make_device(), "RNG_UNAVAILABLE")

    def test_no_noise_no_reply(self, make_device, monkeypatch):
        def clipped_alone(values, event, source):
            quiet = replace(event, noise_stddev=2e-9)
            return guard_module.sanitize(values, quiet, source)

        monkeypatch.setattr(selftest, "sanitize", clipped_alone)
        self.refused(make_device(), "SANITIZER_SELFTEST_FAILED")

    def test_a_lock_that_is_not_let_go_of_is_told(self, make_device, monkeypatch):
        monkeypatch.setattr(private_client, "ANSWERING_PATIENCE_SECONDS", 0.05)
        device = make_device()
        with private_client.held(device.folder / "answering.lock", 0.0):
            self.refused(device, "LEDGER_LOCKED")


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def generated(random, answered):
    """A request and the refusal it must meet, if any; False where two attacks were mixed."""
    honest, draw = honest_request(random), random.random()
    if draw < 0.05 and answered:
        return answered[random.integers(len(answered))], None
    first, second = (ATTACKS[str(random.choice(list(ATTACKS)))] for _ in range(2))
    if draw < 0.8:
        return first.change(honest, random), first.refusal
    return both(honest, first.change(honest, random), second.change(honest, random)), False


def test_ten_thousand_generated_requests_never_pass_the_budget(make_device):
    random, policy = np.random.default_rng(0), replace(ALLOWED, max_epsilon=10.0)
    digests, outcomes, answered, resident = {}, Counter(), deque(maxlen=100), 0
    for number in range(GENERATED):
        if number % 500 == 0:
            device = make_device(policy)  # as after a restart
        if number == GENERATED // 10:
            resident = resident_bytes()
        request, refusal = generated(random, answered)
        charged, reads = len(device.charges()), device.data_reads()
        outcome = outcome_of(device, request)
        outcomes[type(outcome)] += 1

        if isinstance(outcome, Refusal):
            expected = {refusal} if refusal else {BudgetExhausted}
            if refusal is False:
                expected |= {MalformedInput, RequestExceedsPolicy}
            assert type(outcome) in expected, (number, outcome)
            assert len(str(outcome)) < LONGEST_REFUSAL
            assert (len(device.charges()), device.data_reads()) == (charged, reads)
            continue
        assert not refusal, (number, request)
        key = (request.experiment_id, request.server_round, request.hash())
        digest = hashlib.sha256(released(outcome, request)).digest()
        if len(device.charges()) == charged:
            assert digest == digests[key]
            assert device.data_reads() == reads
        else:
            assert device.charges()[charged:] == [asked(request)]
            assert digest not in digests.values()
            assert device.share_of_delta() <= 1 + 1e-9
        digests[key] = digest
        answered.append(request)

    kinds = {TrainReply, BudgetExhausted, MalformedInput, RequestExceedsPolicy}
    assert outcomes.keys() == kinds
    assert min(outcomes.values()) > GENERATED // 20
    read_anew = make_device(policy)
    assert len(read_anew.charges()) == len(device.charges()) > GENERATED // 20
    assert 0.9 < read_anew.share_of_delta() <= 1 + 1e-9
    (counted,) = Ledger(device.folder / "ledger.jsonl", USERS, policy).releases().values()
    assert counted == Counter(SanitizedGradientEvent(**charge) for charge in device.charges())
    assert "failures.log" not in device.files()
    assert resident_bytes() - resident < 50 * 2**20


def test_every_refusal_has_a_name_and_a_code_of_its_own():
    kinds = [kind for kind in vars(refusals).values() if isinstance(kind, type)]
    codes = Counter(kind.code for kind in kinds)
    assert set(codes.values()) == {1}
    assert {kind("").name for kind in kinds} >= {
        "BUDGET_EXHAUSTED", "TOO_MANY_PARTICIPATIONS", "MIN_SEPARATION", "REQUEST_EXCEEDS_POLICY",
        "LEDGER_UNAVAILABLE", "LEDGER_LOCKED", "REPLAY", "MALFORMED_INPUT", "RNG_UNAVAILABLE",
        "SANITIZER_SELFTEST_FAILED",
    }  # fmt: skip

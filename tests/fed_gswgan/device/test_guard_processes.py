import multiprocessing
import os
import shutil
import signal
import sys
from itertools import count

import numpy as np
import pytest

from fed_gswgan.device import client_folder, critic_slots
from fed_gswgan.device import guard as guard_module
from fed_gswgan.device.critic_slots import CriticSlots
from fed_gswgan.privacy import durable_file, ledger, ledger_file, ledger_head
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.privacy.sanitizer import sanitize
from fed_gswgan.wire.messages import TrainRequest
from tests.fed_gswgan.device.attacked_device import USERS, AttackedDevice

# A server process imports PyTorch once, with what Adam imports late; children are forked from it.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["fed_gswgan.device.guard", "torch._dynamo", __name__])

# Everything that holds the lock, writes to the folder, or decides what is written.
WATCHED_MODULES = (
    guard_module, client_folder, critic_slots, durable_file, ledger, ledger_file, ledger_head
)  # fmt: skip
WATCHED = {module.__file__ for module in WATCHED_MODULES}
SAMPLES_BCHW = np.full((4, 1, 28, 28), 0.5, np.float32)


def policy_for(replies):
    """A policy whose budget ends after so many replies of mu = 2 x 2 / 16 = 0.25."""
    return DevicePolicy(
        delta=1e-5, max_epsilon=gaussian_epsilon(0.25 * (replies + 0.5) ** 0.5, 1e-5)
    )


def request_of(server_round):
    return TrainRequest(
        experiment_id="experiment", server_round=server_round, checkpoint_round=server_round - 1,
        samples_BCHW=SAMPLES_BCHW, labels_B=np.zeros(4, np.int64),
        critic_samples_NBCHW=np.empty((0, 4, 1, 28, 28), np.float32),
        critic_labels_NB=np.empty((0, 4), np.int64),
        clipping="sample", clipping_bound=1.0, noise_stddev=16.0,
    )  # fmt: skip


def answer(device, server_round):
    """The bytes of a reply, or the name of the refusal."""
    try:
        return device.guard.answer(request_of(server_round)).gradient.values_BCHW.tobytes()
    except Refusal as refusal:
        return refusal.name


def answer_at_once(folder, policy, server_round, together, outcomes):
    device = AttackedDevice(folder, policy)
    together.wait(60)
    outcomes.put(answer(device, server_round))


def of_two_at_once(folder, policy, *server_rounds):
    """What two processes are answered that ask the same device at the same moment."""
    AttackedDevice(folder, policy)
    together, outcomes = processes.Barrier(2), processes.Queue()
    children = [
        processes.Process(
            target=answer_at_once, args=(folder, policy, server_round, together, outcomes)
        )
        for server_round in server_rounds
    ]
    for child in children:
        child.start()
    found = [outcomes.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    return found


@pytest.mark.parametrize("attempt", range(5))
def test_two_processes_with_one_request_share_one_reply_and_one_charge(tmp_path, attempt):
    one, other = of_two_at_once(tmp_path / "client", policy_for(2), 1, 1)
    assert one == other
    assert len(one) == SAMPLES_BCHW.nbytes
    assert len(AttackedDevice(tmp_path / "client", policy_for(2)).charges()) == 1


@pytest.mark.parametrize("attempt", range(5))
def test_of_two_processes_that_would_pass_the_budget_together_one_is_refused(tmp_path, attempt):
    outcomes = of_two_at_once(tmp_path / "client", policy_for(1), 1, 2)
    assert outcomes.count("BUDGET_EXHAUSTED") == 1
    assert sorted(map(len, outcomes)) == [len("BUDGET_EXHAUSTED"), SAMPLES_BCHW.nbytes]
    device = AttackedDevice(tmp_path / "client", policy_for(1))
    assert len(device.charges()) == 1
    assert device.share_of_delta() <= 1


def killed_before(step, folder, policy, server_round):
    """Answer, and kill this very process before the step-th line from ``reserve`` on.

    Before that nothing is written, and so nothing is lost.
    """
    steps, reserving = count(1), []

    def each_line(frame, event, argument):
        if event == "line" and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return each_line

    def each_call(frame, event, argument):
        reserving.extend([True] * (frame.f_code is Ledger.reserve.__code__))
        return each_line if reserving and frame.f_code.co_filename in WATCHED else None

    class Noting(AttackedDevice):
        def _open_shard(self):
            (folder.parent / "opened").touch()
            return super()._open_shard()

    def noting(*arguments):
        sanitized = sanitize(*arguments)
        (folder.parent / "sanitized").write_bytes(sanitized.values_BCHW.tobytes())
        return sanitized

    guard_module.sanitize = noting
    device = Noting(folder, policy)
    sys.settrace(each_call)
    reply = answer(device, server_round)
    sys.settrace(None)
    (folder.parent / "reply").write_bytes(reply)


def run_killed(target, *arguments):
    """Run a child and return whether it was killed; it may not fail in another way."""
    child = processes.Process(target=target, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def kept_reply(folder, server_round):
    request = request_of(server_round)
    key = ReleaseKey(request.experiment_id, server_round, request.hash())
    return CriticSlots(folder, request.experiment_id).released(key, SAMPLES_BCHW.shape)


@pytest.mark.parametrize(
    "before",
    [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)],
)
def test_killed_between_any_two_lines_of_an_answer_a_device_never_forgets_a_charge(
    tmp_path, before
):
    policy, this_round, next_round = policy_for(before + 2), before + 1, before + 2
    template = AttackedDevice(tmp_path / "template", policy)
    earlier = [answer(template, server_round) for server_round in range(1, before + 1)]
    reserved, kept_before = [], []

    for step in count(1):
        folder = tmp_path / str(step) / "client"
        shutil.copytree(template.folder, folder)
        killed = run_killed(killed_before, step, folder, policy, this_round)

        # What the dead left is a ledger that can be read, and is believed.
        device = AttackedDevice(folder, policy)
        charges = len(device.charges())
        assert charges in (before, before + 1)
        (counted,) = Ledger(folder / "ledger.jsonl", USERS, policy).releases().values()
        assert counted.total() == charges
        kept = kept_reply(folder, this_round)
        if (folder.parent / "opened").exists() or kept is not None or not killed:
            assert charges == before + 1
        reserved.append(charges - before)
        kept_before.append(kept is not None)

        # Earlier replies and one that was finished are free, and the same; another is charged.
        if earlier:
            assert answer(device, before) == earlier[-1]
            assert len(device.charges()) == charges
        again = answer(device, this_round)
        assert len(again) == SAMPLES_BCHW.nbytes
        assert len(device.charges()) == charges + (kept is None)
        if kept is not None:
            assert again == kept.tobytes() == (folder.parent / "sanitized").read_bytes()

        # And what is left of the budget is what it was worth.
        left = before + 2 - len(device.charges())
        outcome = answer(device, next_round)
        assert (outcome == "BUDGET_EXHAUSTED") is (left == 0)
        assert len(device.charges()) == before + 2
        assert device.share_of_delta() <= 1
        assert "failures.log" not in device.files()
        if not killed:
            assert again == (folder.parent / "reply").read_bytes()
            break
        shutil.rmtree(folder.parent)

    assert step > 100
    # Once reserved, for ever; and not kept before it was reserved.
    assert reserved == sorted(reserved)
    assert kept_before == sorted(kept_before)
    assert 0 < reserved.index(1) < kept_before.index(True)


def half_written(number, folder, policy, server_round):
    """Answer, and lose power in the middle of the number-th write."""
    write, writes = os.write, count(1)

    def half_of_one(descriptor, data):
        if next(writes) < number:
            return write(descriptor, data)
        write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    os.write = half_of_one
    answer(AttackedDevice(folder, policy), server_round)


def test_half_a_line_counts_as_exhausted_until_its_owner_drops_it(tmp_path):
    policy = policy_for(2)
    device = AttackedDevice(tmp_path / "client", policy)
    first = answer(device, 1)
    assert run_killed(half_written, 1, device.folder, policy, 2)

    device = AttackedDevice(tmp_path / "client", policy)
    assert answer(device, 1) == first
    assert answer(device, 2) == "LEDGER_UNAVAILABLE"
    assert device.data_reads() == 0
    assert LedgerFile(device.folder / "ledger.jsonl").drop_incomplete_line()
    outcomes = [answer(device, server_round) for server_round in (2, 3)]
    assert [len(outcomes[0]), outcomes[1]] == [SAMPLES_BCHW.nbytes, "BUDGET_EXHAUSTED"]
    assert len(device.charges()) == 2


def test_half_a_head_is_no_head_and_its_line_counts(tmp_path):
    policy = policy_for(2)
    device = AttackedDevice(tmp_path / "client", policy)
    assert run_killed(half_written, 2, device.folder, policy, 1)
    assert len(device.charges()) == 1
    outcomes = [answer(device, server_round) for server_round in (1, 2)]
    assert [len(outcomes[0]), outcomes[1]] == [SAMPLES_BCHW.nbytes, "BUDGET_EXHAUSTED"]
    assert len(device.charges()) == 2

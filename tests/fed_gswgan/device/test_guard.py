import json

import numpy as np
import pytest

from fed_gswgan.config import CriticConfig
from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.models.build import build_critic, parameter_count
from fed_gswgan.privacy.accountant import gaussian_epsilon
from fed_gswgan.privacy.ledger_file import LedgerUnavailable, PrivacyBudgetExhausted


def answered(guard, request):
    reply = guard.answer(request)
    assert reply.server_round == request.server_round
    assert reply.gradient_BCHW.dtype == np.float32
    assert reply.gradient_BCHW.shape == request.samples_BCHW.shape
    assert np.isfinite(reply.gradient_BCHW).all()
    return reply.gradient_BCHW.tobytes()


def without_noise(guard_of, *arguments, **settings):
    """A guard whose noise is too small to hide what the critic did."""
    return guard_of(*arguments, noise_stddev=1e-9, **settings)


class TestCharges:
    def test_each_user_is_charged_once_a_release(self, make_guard, make_request, charges, tmp_path):
        guard = make_guard(tmp_path / "client", users=("f0001", "f0002"))
        answered(guard, make_request(1))
        assert charges(tmp_path / "client") == 2
        answered(guard, make_request(2, 1))
        assert charges(tmp_path / "client") == 4

    def test_same_request_again_gets_identical_bytes_at_no_charge(
        self, make_guard, make_request, charges, tmp_path
    ):
        folder = tmp_path / "client"
        guard = make_guard(folder, noise_source="secure")
        first = answered(guard, make_request(1))
        assert answered(guard, make_request(1)) == first
        assert answered(make_guard(folder, noise_source="secure"), make_request(1)) == first
        assert charges(folder) == 1

    def test_answered_request_needs_neither_data_nor_budget_again(
        self, make_guard, make_request, tmp_path
    ):
        def unreadable():
            raise AssertionError("data was read")

        first = answered(make_guard(tmp_path / "client"), make_request(1))
        exhausted = make_guard(tmp_path / "client", unreadable, max_epsilon=1e-9)
        assert answered(exhausted, make_request(1)) == first

    def test_another_request_for_the_same_round_is_a_new_charge(
        self, make_guard, make_request, charges, tmp_path
    ):
        guard = make_guard(tmp_path / "client")
        first = answered(guard, make_request(1))
        assert answered(guard, make_request(1, seed=1)) != first
        assert charges(tmp_path / "client") == 2

    @pytest.mark.parametrize("field", ["experiment_id", "labels_B"])
    def test_every_part_of_a_request_makes_it_another(
        self, make_guard, make_request, charges, tmp_path, field
    ):
        guard = make_guard(tmp_path / "client")
        changed = {"experiment_id": "another", "labels_B": np.zeros(4, dtype=np.int64)}
        answered(guard, make_request(1))
        answered(guard, make_request(1, **{field: changed[field]}))
        assert charges(tmp_path / "client") == 2

    def test_event_on_disk_is_what_was_asked_and_set(self, make_guard, make_request, tmp_path):
        guard = make_guard(tmp_path / "client", clipping="message", noise_stddev=3.0)
        request = make_request(1)
        short = make_request(
            1, samples_BCHW=request.samples_BCHW[:3], labels_B=request.labels_B[:3]
        )
        answered(guard, short)
        line = (tmp_path / "client" / "ledger.jsonl").read_text().splitlines()[1]
        assert json.loads(line)["entry"]["event"] == {
            "samples": 3,
            "clipping": "message",
            "clipping_bound": 1.0,
            "noise_stddev": 3.0,
        }

    def test_reservation_is_on_disk_before_data_is_opened(
        self, make_guard, make_request, make_shard, charges, tmp_path
    ):
        seen = []

        def open_shard():
            seen.append(charges(tmp_path / "client"))
            return make_shard()

        guard = make_guard(tmp_path / "client", open_shard)
        assert seen == []
        answered(guard, make_request(1))
        answered(guard, make_request(2, 1))
        assert seen == [1]

    def test_crash_after_the_reservation_stays_charged(
        self, make_guard, make_request, make_shard, charges, tmp_path
    ):
        def unreadable():
            raise OSError("the disk is gone")

        guard = make_guard(tmp_path / "client", unreadable)
        with pytest.raises(OSError, match="the disk is gone"):
            guard.answer(make_request(1))
        assert charges(tmp_path / "client") == 1
        answered(make_guard(tmp_path / "client"), make_request(1))
        assert charges(tmp_path / "client") == 2


class TestRefusals:
    def test_exhausted_budget_refuses_before_data_is_opened(
        self, make_guard, make_request, make_shard, charges, tmp_path
    ):
        # Four rows at noise 16: mu = 2 x 2 / 16 = 0.25 a reply, 0.354 after two, 0.433 after three.
        opened = []
        settings = {"noise_stddev": 16.0, "max_epsilon": gaussian_epsilon(0.4, 1e-5)}
        guard = make_guard(tmp_path / "client", **settings)
        answered(guard, make_request(1))
        answered(guard, make_request(2, 1))
        fresh = make_guard(tmp_path / "client", lambda: opened.append(1), **settings)
        for refusing in (guard, fresh):
            with pytest.raises(PrivacyBudgetExhausted, match="max-epsilon="):
                refusing.answer(make_request(3, 2))
        assert opened == []
        assert charges(tmp_path / "client") == 2

    @pytest.mark.parametrize("content", [None, b"", b"{}\n"])
    def test_missing_or_damaged_ledger_refuses_before_data_is_opened(
        self, make_guard, make_request, tmp_path, content
    ):
        opened = []
        guard = make_guard(tmp_path / "client", lambda: opened.append(1))
        path = tmp_path / "client" / "ledger.jsonl"
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(LedgerUnavailable):
            guard.answer(make_request(1))
        assert opened == []
        assert path.exists() == (content is not None)


class TestReplies:
    @pytest.mark.parametrize(
        "shard",
        [
            lambda: WriterShard(
                ("a",), np.zeros((1, 1, 28, 28), np.float32), np.array([2], np.int64)
            ),
            lambda: WriterShard(
                ("a",), np.ones((20, 1, 28, 28), np.float32), np.zeros(20, np.int64)
            ),
            lambda: WriterShard(
                ("a",), np.full((3, 1, 28, 28), 0.5, np.float32), np.array([7, 8, 9], np.int64)
            ),
        ],
        ids=["one image", "one class", "no class that is asked for"],
    )
    @pytest.mark.parametrize("noise_source", ["seeded", "secure"])
    def test_reply_has_one_shape_whatever_the_data(
        self, make_guard, make_request, tmp_path, shard, noise_source
    ):
        guard = make_guard(tmp_path / "client", shard, noise_source=noise_source)
        assert len(answered(guard, make_request(1))) == 4 * 4 * 28 * 28

    def test_reply_is_bounded_before_its_noise(self, make_guard, make_request, tmp_path):
        guard = without_noise(make_guard, tmp_path / "client", clipping_bound=0.01)
        rows = guard.answer(make_request(1)).gradient_BCHW.reshape(4, -1)
        assert np.linalg.norm(rows, axis=1) == pytest.approx([0.01] * 4, rel=1e-5)

    @pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
    @pytest.mark.filterwarnings("ignore:overflow encountered")
    def test_diverged_critic_still_gives_a_finite_reply_of_full_shape(
        self, make_guard, make_request, charges, tmp_path, poison
    ):
        guard = make_guard(tmp_path / "client")
        size = parameter_count(build_critic(CriticConfig(critic_width=16), 3, seed=0))
        parameters = np.full((3, size), poison, dtype=np.float32)
        diverged = CriticState(1, 2, parameters, "0" * 64, np.zeros(1, np.float32))
        CriticSlots(tmp_path / "client").store(diverged, 0)
        noise = np.frombuffer(answered(guard, make_request(2, 1)), np.float32)
        assert (noise != 0).all()
        assert charges(tmp_path / "client") == 1

    def test_further_batches_train_the_critic_and_are_not_answered(
        self, make_guard, make_request, tmp_path
    ):
        more = {
            "critic_samples_NBCHW": np.full((2, 3, 1, 28, 28), 0.5, np.float32),
            "critic_labels_NB": np.zeros((2, 3), np.int64),
        }
        plain = answered(without_noise(make_guard, tmp_path / "a"), make_request(1))
        trained = answered(without_noise(make_guard, tmp_path / "b"), make_request(1, **more))
        assert trained != plain


class TestState:
    def test_restarted_guard_goes_on_with_the_same_critic(self, make_guard, make_request, tmp_path):
        requests = [make_request(1), make_request(2, 1), make_request(3, 1)]
        one = without_noise(make_guard, tmp_path / "one")
        whole = [answered(one, request) for request in requests]
        restarted = [
            answered(without_noise(make_guard, tmp_path / "two"), request) for request in requests
        ]
        assert restarted == whole
        # And the earlier rounds do matter.
        fresh = without_noise(make_guard, tmp_path / "three")
        assert answered(fresh, requests[2]) != whole[2]

    @pytest.mark.parametrize("checkpoint", [0, 1])
    def test_server_that_falls_back_finds_the_critic_of_its_checkpoint(
        self, make_guard, make_request, charges, tmp_path, checkpoint
    ):
        requests = [make_request(1), *(make_request(r, checkpoint) for r in (2, 3))]
        guard = make_guard(tmp_path / "client")
        before = [answered(guard, request) for request in requests]
        again = [answered(guard, request) for request in requests[checkpoint:]]
        assert again == before[checkpoint:]
        # Computed again, so charged again.
        assert charges(tmp_path / "client") == 3 + len(again)

    def test_replies_do_not_depend_on_other_clients_or_global_generators(
        self, make_guard, make_request, tmp_path
    ):
        np.random.seed(1)
        first = answered(make_guard(tmp_path / "a"), make_request(1))
        np.random.seed(2)
        assert answered(make_guard(tmp_path / "b"), make_request(1)) == first

    def test_warm_start_changes_the_first_critic_and_is_reproducible(
        self, make_guard, make_request, tmp_path
    ):
        def reply(name, steps):
            guard = without_noise(make_guard, tmp_path / name, warm_start_steps=steps)
            return answered(guard, make_request(1))

        cold, warm = reply("a", 0), reply("b", 2)
        assert warm != cold
        assert reply("c", 2) == warm

    def test_warm_start_happens_once(self, make_guard, make_request, tmp_path):
        folder = tmp_path / "client"
        answered(without_noise(make_guard, folder, warm_start_steps=2), make_request(1))
        state = CriticSlots(folder).at(1)
        assert state.optimizer_steps == 3 * 2  # two warm rounds and the first, of two steps each
        answered(without_noise(make_guard, folder, warm_start_steps=2), make_request(2, 1))
        assert CriticSlots(folder).at(2).optimizer_steps == 4 * 2


class TestNoise:
    def test_two_seeds_give_different_noise(self, make_guard, make_request, tmp_path):
        # Beside this noise the clipped gradient does not count.
        noises = [
            make_guard(tmp_path / str(seed), seed=seed, noise_stddev=1e6)
            .answer(make_request(1))
            .gradient_BCHW.ravel()
            for seed in (0, 1)
        ]
        assert abs(np.corrcoef(noises)[0, 1]) < 6 / np.sqrt(noises[0].size)

    def test_rounds_get_different_noise(self, make_guard, make_request, tmp_path):
        guard = make_guard(tmp_path / "client", noise_stddev=1e6)
        noises = [guard.answer(make_request(r, r - 1)).gradient_BCHW.ravel() for r in (1, 2)]
        assert abs(np.corrcoef(noises)[0, 1]) < 6 / np.sqrt(noises[0].size)

    def test_secure_noise_is_never_the_same_twice(self, make_guard, make_request, tmp_path):
        replies = [
            make_guard(tmp_path / name, noise_source="secure", noise_stddev=1e6)
            .answer(make_request(1))
            .gradient_BCHW.ravel()
            for name in "ab"
        ]
        assert abs(np.corrcoef(replies)[0, 1]) < 6 / np.sqrt(replies[0].size)

    def test_reply_holds_noise_of_the_size_that_was_set(self, make_guard, make_request, tmp_path):
        guard = make_guard(
            tmp_path / "client", noise_source="secure", noise_stddev=50.0, clipping_bound=2.0
        )
        noise = guard.answer(make_request(1)).gradient_BCHW
        # 3136 draws of deviation 100; six deviations of their standard deviation.
        assert noise.std() == pytest.approx(100, abs=6 * 100 / np.sqrt(2 * 3136))

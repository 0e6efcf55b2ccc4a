import json
import os
import secrets
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.device import guard as guard_module
from fed_gswgan.device import private_client
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.models.registry import build_critic, parameter_count
from fed_gswgan.privacy import sanitizer
from fed_gswgan.privacy.durable_file import held
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    LedgerLocked,
    LedgerUnavailable,
    MinSeparation,
    Replay,
    RngUnavailable,
    SanitizerSelftestFailed,
    TooManyParticipations,
)
from fed_gswgan.release_basis import to_release_basis
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training_config import CriticConfig


def unreadable():
    raise OSError("the disk is gone")


def noise_alone(request, stddev=2.14):
    """What a client answers whose clipped gradient is zero, in bytes."""
    stream = SeedStream(0).generator("noise", request.server_round, "client-00000")
    zeros = np.zeros(request.samples_BCHW.shape)
    return SeededNoise(stream).add_noise(zeros, stddev).astype(np.float32).tobytes()


def everything_in(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def answered(guard, request):
    reply = guard.answer(request)
    assert reply.server_round == request.server_round
    assert reply.gradient.values_BCHW.dtype == np.float32
    assert reply.gradient.values_BCHW.shape == request.samples_BCHW.shape
    assert np.isfinite(reply.gradient.values_BCHW).all()
    return reply.gradient.values_BCHW.tobytes()


def without_noise(guard_of, *arguments, **settings):
    """A guard whose noise is too small to hide what the critic did."""
    return guard_of(*arguments, noise_stddev=2e-9, **settings)


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
            "noise_added_by": "device",
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
        self, make_guard, make_request, charges, tmp_path
    ):
        def killed():
            raise KeyboardInterrupt

        guard = make_guard(tmp_path / "client", killed)
        with pytest.raises(KeyboardInterrupt):
            guard.answer(make_request(1))
        assert charges(tmp_path / "client") == 1
        answered(make_guard(tmp_path / "client"), make_request(1))
        assert charges(tmp_path / "client") == 2

    def test_experiments_share_the_ledger(self, make_guard, make_request, charges, tmp_path):
        # Two experiments of two replies each; mu = 0.25 a reply, 0.433 after three.
        settings = {"noise_stddev": 16.0, "max_epsilon": gaussian_epsilon(0.45, 1e-5)}
        guard = make_guard(tmp_path / "client", **settings)
        for server_round in (1, 2):
            answered(guard, make_request(server_round))
        answered(guard, make_request(1, experiment_id="another"))
        with pytest.raises(BudgetExhausted, match="max-epsilon="):
            guard.answer(make_request(2, experiment_id="another"))
        assert charges(tmp_path / "client") == 3


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
            with pytest.raises(BudgetExhausted, match="max-epsilon="):
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

    @pytest.mark.parametrize(
        "users",
        [(), ("f0001",), ("f0001", "f0003"), ("f0001", "f0002", "f0003"), ("f0002", "f0001")],
        ids=["nobody", "fewer", "another", "more", "another order"],
    )
    def test_writers_dealt_otherwise_than_the_ledger_says_are_refused_unread(
        self, make_guard, make_request, charges, tmp_path, users
    ):
        opened, folder = [], tmp_path / "client"
        answered(make_guard(folder, users=("f0001", "f0002")), make_request(1))
        dealt_otherwise = make_guard(folder, lambda: opened.append(1), users=users)
        with pytest.raises(LedgerUnavailable, match="would not be charged"):
            dealt_otherwise.answer(make_request(2, 1))
        assert opened == []
        assert charges(folder) == 2
        assert not (folder / "failures.log").exists()

    def test_ledger_that_cannot_be_written_refuses_before_data_is_opened(
        self, make_guard, make_request, tmp_path, monkeypatch
    ):
        def full(*arguments):
            raise OSError(28, "No space left on device")

        opened = []
        guard = make_guard(tmp_path / "client", lambda: opened.append(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(LedgerUnavailable, match="nothing was released"):
                guard.answer(make_request(1))
        assert opened == []


class TestLimits:
    """The owner's limits, which no request and no setting of a run changes."""

    @pytest.fixture
    def refused(self, make_guard, charges):
        """Ask a guard that must refuse, uncharged and without opening any data."""

        def ask(folder, request, refusal, said, limits=None, **settings):
            opened, before = [], charges(folder)
            guard = make_guard(folder, lambda: opened.append(1), limits=limits, **settings)
            with pytest.raises(refusal, match=said):
                guard.answer(request)
            assert (opened, charges(folder)) == ([], before)

        return ask

    def test_participations_are_limited_over_experiments_and_restarts(
        self, make_guard, make_request, refused, tmp_path
    ):
        folder, limits = tmp_path / "client", {"max_participations": 2}
        answered(make_guard(folder, limits=limits), make_request(1))
        answered(make_guard(folder, limits=limits), make_request(1, experiment_id="another"))
        for request in (make_request(2, 1), make_request(1, experiment_id="a third")):
            refused(folder, request, TooManyParticipations, "max-participations=2", limits)

    def test_rounds_lie_apart_by_the_separation(self, make_guard, make_request, refused, tmp_path):
        folder, limits = tmp_path / "client", {"min_separation_rounds": 3}
        guard = make_guard(folder, limits=limits)
        answered(guard, make_request(1))
        refused(folder, make_request(3, 1), MinSeparation, "min-separation-rounds=3", limits)
        answered(guard, make_request(3, 1, experiment_id="another"))
        answered(guard, make_request(4, 1))

    def test_answers_lie_apart_in_time_whichever_experiment_asks(
        self, make_guard, make_request, refused, tmp_path
    ):
        folder, said = tmp_path / "client", "min-separation-seconds=3600"
        limits = {"min_separation_seconds": 3600.0}
        answered(make_guard(folder, limits=limits), make_request(1))
        for request in (make_request(2, 1), make_request(9, experiment_id="another")):
            refused(folder, request, MinSeparation, said, limits)
        answered(make_guard(folder, limits={"min_separation_seconds": 1e-9}), make_request(2, 1))

    def test_a_clock_that_went_back_lets_nobody_ask_sooner(
        self, make_guard, make_request, refused, tmp_path
    ):
        folder = tmp_path / "client"
        make_guard(folder)
        event = SanitizedGradientEvent(
            samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=2.14
        )
        an_hour_ahead = Ledger(
            folder / "ledger.jsonl", ("f0001",), DevicePolicy(), lambda: time.time() + 3600
        )
        an_hour_ahead.reserve(ReleaseKey("experiment", 1, "ab" * 32), event)
        limits = {"min_separation_seconds": 1e-9}
        refused(folder, make_request(2, 1), MinSeparation, "min-separation-seconds=1e-09", limits)

    def test_kept_bytes_are_given_again_whatever_the_limits_say(
        self, make_guard, make_request, charges, tmp_path
    ):
        folder = tmp_path / "client"
        limits = {
            "max_participations": 1,
            "min_separation_rounds": 3,
            "min_separation_seconds": 3600.0,
            "lost_replies": "refuse",
        }
        first = answered(make_guard(folder, limits=limits), make_request(1))
        assert answered(make_guard(folder, limits=limits), make_request(1)) == first
        assert charges(folder) == 1

    def test_lost_bytes_are_not_replaced_where_the_policy_says_refuse(
        self, make_guard, make_request, refused, tmp_path
    ):
        folder, limits = tmp_path / "client", {"lost_replies": "refuse"}
        answered(make_guard(folder, limits=limits), make_request(1))
        (critic,) = folder.glob("critic-*")
        shutil.rmtree(critic)
        refused(folder, make_request(1), Replay, "server-round=1 .* lost-replies=refuse", limits)
        answered(make_guard(folder, limits=limits), make_request(2, 1))

    def test_a_client_that_somebody_else_answers_for_is_locked(
        self, make_guard, make_request, refused, tmp_path, monkeypatch
    ):
        folder = tmp_path / "client"
        make_guard(folder)
        monkeypatch.setattr(private_client, "ANSWERING_PATIENCE_SECONDS", 0.05)
        with held(folder / "answering.lock", 0):
            refused(folder, make_request(1), LedgerLocked, "answering.lock .* 0.05 s")
        answered(make_guard(folder), make_request(1))

    def test_without_random_bytes_nothing_is_answered(
        self, make_guard, make_request, refused, tmp_path, monkeypatch
    ):
        def fail(count):
            raise OSError("no entropy")

        folder = tmp_path / "client"
        make_guard(folder)
        monkeypatch.setattr(secrets, "token_bytes", fail)
        for noise_source in ("secure", "seeded"):
            refused(
                folder, make_request(1), RngUnavailable, "no entropy", noise_source=noise_source
            )

    def test_a_sanitizer_that_does_not_clip_answers_nothing(
        self, make_guard, make_request, refused, tmp_path, monkeypatch
    ):
        folder = tmp_path / "client"
        make_guard(folder)
        monkeypatch.setattr(sanitizer, "clip", lambda rows, clipping, bound: rows)
        for _ in range(2):  # and it is tried again, not taken for tested
            refused(folder, make_request(1), SanitizerSelftestFailed, "were released with norms")


class TestFailures:
    """After the reservation whatever fails gives a reply like any other."""

    @pytest.mark.parametrize(
        ("module", "failing"),
        [
            (guard_module, "train_critic"),
            (guard_module, "sample_gradient"),
            (guard_module, "build_critic"),
            (guard_module, "critic_optimizer"),
        ],
    )
    @pytest.mark.parametrize("error", [RuntimeError, ValueError, MemoryError, BudgetExhausted])
    def test_failed_training_is_answered_with_the_noise_alone(
        self, make_guard, make_request, charges, tmp_path, monkeypatch, module, failing, error
    ):
        def fail(*arguments):
            raise error("about the data")

        monkeypatch.setattr(module, failing, fail)
        guard = make_guard(tmp_path / "client")
        assert answered(guard, make_request(1)) == noise_alone(make_request(1))
        assert charges(tmp_path / "client") == 1

    @pytest.mark.parametrize("users", [("f0001",), ("f0001", "f0002")])
    def test_unreadable_data_is_answered_with_the_noise_alone_and_charged_to_everybody(
        self, make_guard, make_request, charges, tmp_path, users
    ):
        guard = make_guard(tmp_path / "client", unreadable, users=users)
        assert answered(guard, make_request(1)) == noise_alone(make_request(1))
        assert charges(tmp_path / "client") == len(users)

    def test_shard_of_another_shape_is_answered_with_the_noise_alone(
        self, make_guard, make_request, tmp_path
    ):
        shards = [lambda: None, lambda: ("no", "shard")]
        for number, shard in enumerate(shards):
            guard = make_guard(tmp_path / str(number), shard)
            assert answered(guard, make_request(1)) == noise_alone(make_request(1))

    def test_critic_of_other_settings_begins_anew(
        self, make_guard, make_request, charges, tmp_path, caplog
    ):
        folder = tmp_path / "client"
        answered(make_guard(folder), make_request(1))
        wider = make_guard(folder, critic_width=32)
        never_trained = make_guard(tmp_path / "new", critic_width=32)
        assert answered(wider, make_request(2, 1)) == answered(never_trained, make_request(2, 1))
        assert charges(folder) == 2
        assert "critic state has shape" in caplog.text
        assert not (folder / "failures.log").exists()

    def test_a_damaged_critic_is_reported_and_begins_anew(
        self, make_guard, make_request, charges, tmp_path, caplog
    ):
        folder = tmp_path / "client"
        answered(make_guard(folder), make_request(1))
        assert "damaged" not in caplog.text
        (slot,) = folder.rglob("critic-*/*.safetensors")
        slot.write_bytes(slot.read_bytes()[:-1] + b"x")
        never_trained = make_guard(tmp_path / "new")
        assert answered(make_guard(folder), make_request(2, 1)) == answered(
            never_trained, make_request(2, 1)
        )
        assert charges(folder) == 2
        assert f"critic file {slot} is damaged" in caplog.text

    def test_secure_noise_hides_a_failure_too(self, make_guard, make_request, tmp_path):
        guard = make_guard(tmp_path / "client", unreadable, noise_source="secure", noise_stddev=50)
        noise = guard.answer(make_request(1)).gradient.values_BCHW
        assert noise.std() == pytest.approx(50, abs=6 * 50 / np.sqrt(2 * 3136))

    def test_failed_round_repeats_its_bytes_like_any_other(
        self, make_guard, make_request, charges, tmp_path
    ):
        """With secure noise another reply to the same request would tell that training failed."""
        folder = tmp_path / "client"
        failed = answered(make_guard(folder, unreadable, noise_source="secure"), make_request(1))
        again = answered(make_guard(folder, noise_source="secure"), make_request(1))
        assert again == failed
        assert charges(folder) == 1

    def test_critic_starts_anew_after_a_first_round_that_failed(
        self, make_guard, make_request, charges, tmp_path
    ):
        folder, other = tmp_path / "client", tmp_path / "other"
        answered(without_noise(make_guard, folder, unreadable), make_request(1))
        mended = answered(without_noise(make_guard, folder), make_request(2, 1))
        assert mended == answered(without_noise(make_guard, other), make_request(2, 1))
        assert charges(folder) == 2

    def test_critic_goes_on_from_before_the_failed_round(
        self, make_guard, make_request, tmp_path, monkeypatch
    ):
        def replies(folder, failing_round):
            guard, kept = without_noise(make_guard, folder), []
            for server_round in (1, 2, 3):
                with monkeypatch.context() as patch:
                    if server_round == failing_round:
                        patch.setattr(guard_module, "sample_gradient", None)
                    kept.append(answered(guard, make_request(server_round, server_round - 1)))
            return kept

        first, failed, third = replies(tmp_path / "failing", 2)
        assert failed == noise_alone(make_request(2), 2e-9)
        guard = without_noise(make_guard, tmp_path / "asked twice")
        assert answered(guard, make_request(1)) == first
        assert answered(guard, make_request(3, 1)) == third

    def test_failure_is_written_down_for_its_owner_alone(self, make_guard, make_request, tmp_path):
        guard = make_guard(tmp_path / "client", unreadable)
        for server_round in (1, 2):
            answered(guard, make_request(server_round))
        log = tmp_path / "client" / "failures.log"
        assert log.read_text().count("OSError: the disk is gone") == 2
        assert log.stat().st_mode & 0o777 == 0o600

    def test_failure_that_cannot_be_written_down_is_answered_all_the_same(
        self, make_guard, make_request, tmp_path
    ):
        guard = make_guard(tmp_path / "client", unreadable)
        (tmp_path / "client" / "failures.log").mkdir()
        assert answered(guard, make_request(1)) == noise_alone(make_request(1))

    def test_full_disk_costs_the_critic_and_not_the_reply(
        self, make_guard, make_request, charges, tmp_path, monkeypatch
    ):
        def full(*arguments):
            raise OSError(28, "No space left on device")

        folder = tmp_path / "client"
        expected = answered(make_guard(tmp_path / "with room"), make_request(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            assert answered(make_guard(folder), make_request(1)) == expected
        assert "No space left" in (folder / "failures.log").read_text()
        assert charges(folder) == 1
        # Not kept, so trained and charged again; then it is kept.
        for _ in range(2):
            assert answered(make_guard(folder), make_request(1)) == expected
            assert charges(folder) == 2

    def test_no_failure_leaves_no_log(self, make_guard, make_request, tmp_path):
        answered(make_guard(tmp_path / "client"), make_request(1))
        assert not (tmp_path / "client" / "failures.log").exists()


class TestReplies:
    @pytest.mark.parametrize(
        "shard",
        [
            lambda: ClientDataset(
                ("a",), np.zeros((1, 1, 28, 28), np.float32), np.array([2], np.int64)
            ),
            lambda: ClientDataset(
                ("a",), np.ones((20, 1, 28, 28), np.float32), np.zeros(20, np.int64)
            ),
            lambda: ClientDataset(
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
        rows = guard.answer(make_request(1)).gradient.values_BCHW.reshape(4, -1)
        assert np.linalg.norm(rows, axis=1) == pytest.approx([0.01] * 4, rel=1e-5)

    @pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
    @pytest.mark.filterwarnings("ignore:overflow encountered")
    def test_diverged_critic_still_gives_a_finite_reply_of_full_shape(
        self, make_guard, make_request, charges, tmp_path, poison
    ):
        guard = make_guard(tmp_path / "client")
        size = parameter_count(
            build_critic(CriticConfig(critic_width=16), DataSpec(IMAGE_SHAPE, 3), seed=0)
        )
        parameters = np.full((3, size), poison, dtype=np.float32)
        diverged = CriticState(1, 2, parameters, "0" * 64, np.zeros(1, np.float32))
        CriticSlots(tmp_path / "client", "experiment").store(diverged, 0)
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

    def test_experiments_start_from_new_critics(self, make_guard, make_request, charges, tmp_path):
        guard = without_noise(make_guard, tmp_path / "client")
        first = [answered(guard, make_request(r, r - 1)) for r in (1, 2)]
        other = [answered(guard, make_request(r, r - 1, experiment_id="another")) for r in (1, 2)]
        assert other == first
        assert charges(tmp_path / "client") == 4
        # And each goes on with its own.
        fresh = without_noise(make_guard, tmp_path / "fresh")
        assert answered(guard, make_request(3, 2)) != answered(fresh, make_request(3, 2))

    @pytest.mark.parametrize("experiment_id", ["../../x", "/x", "..", ""])
    def test_whatever_an_experiment_is_called_nothing_is_written_outside_the_folder(
        self, make_guard, make_request, tmp_path, experiment_id
    ):
        folder = tmp_path / "a" / "client"
        folder.mkdir(parents=True)
        Ledger.create(folder / "ledger.jsonl", ("f0001",))
        request = make_request(1, experiment_id=experiment_id)
        first = answered(make_guard(folder, noise_source="secure"), request)
        assert answered(make_guard(folder, noise_source="secure"), request) == first
        outside = {p for p in tmp_path.rglob("*") if folder not in p.parents}
        assert outside == {tmp_path / "a", folder}

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
        before = CriticSlots(folder, "experiment").before(2)
        assert before.optimizer_steps == 2 * 5 + 2  # two warm steps and the first round
        answered(without_noise(make_guard, folder, warm_start_steps=2), make_request(2, 1))
        assert CriticSlots(folder, "experiment").before(3).optimizer_steps == 2 * 5 + 2 * 2


class TestCriticState:
    """What a participation leaves behind: its trained critic, or the one that it began with."""

    @pytest.mark.parametrize(("warm_start_steps", "optimizer_steps"), [(0, 0), (2, 10)])
    def test_snapshot_leaves_the_critic_that_every_round_begins_with(
        self, make_guard, make_request, tmp_path, warm_start_steps, optimizer_steps
    ):
        folder = tmp_path / "client"
        settings = {"critic_state": "snapshot", "warm_start_steps": warm_start_steps}
        left = []
        for server_round in (1, 2, 3):
            guard = make_guard(folder, **settings)
            answered(guard, make_request(server_round, server_round - 1))
            left.append(CriticSlots(folder, "experiment").before(server_round + 1))
        assert [state.server_round for state in left] == [1, 2, 3]
        assert {state.optimizer_steps for state in left} == {optimizer_steps}
        assert len({state.parameters.tobytes() for state in left}) == 1

    def test_persistent_leaves_the_critic_that_was_trained(
        self, make_guard, make_request, tmp_path
    ):
        guard = make_guard(tmp_path / "client", critic_state="persistent")
        left = []
        for server_round in (1, 2):
            answered(guard, make_request(server_round, server_round - 1))
            slots = CriticSlots(tmp_path / "client", "experiment")
            left.append(slots.before(server_round + 1))
        assert [state.optimizer_steps for state in left] == [2, 4]  # critic-steps=2
        assert left[0].parameters.tobytes() != left[1].parameters.tobytes()

    @pytest.mark.parametrize("warm_start_steps", [0, 2])
    @pytest.mark.parametrize(("critic_state", "same"), [("snapshot", True), ("persistent", False)])
    def test_an_answer_depends_on_earlier_rounds_only_where_the_critic_is_persistent(
        self, make_guard, make_request, tmp_path, warm_start_steps, critic_state, same
    ):
        settings = {"critic_state": critic_state, "warm_start_steps": warm_start_steps}

        def last_of(name, rounds):
            guard = without_noise(make_guard, tmp_path / name, **settings)
            return [answered(guard, make_request(r, r - 1)) for r in rounds][-1]

        assert (last_of("often", (1, 2, 3, 7)) == last_of("once", (7,))) == same


class TestNoise:
    def test_two_seeds_give_different_noise(self, make_guard, make_request, tmp_path):
        # Beside this noise the clipped gradient does not count.
        noises = [
            make_guard(tmp_path / str(seed), seed=seed, noise_stddev=1e6)
            .answer(make_request(1))
            .gradient.values_BCHW.ravel()
            for seed in (0, 1)
        ]
        assert abs(np.corrcoef(noises)[0, 1]) < 6 / np.sqrt(noises[0].size)

    def test_rounds_get_different_noise(self, make_guard, make_request, tmp_path):
        guard = make_guard(tmp_path / "client", noise_stddev=1e6)
        noises = [guard.answer(make_request(r, r - 1)).gradient.values_BCHW.ravel() for r in (1, 2)]
        assert abs(np.corrcoef(noises)[0, 1]) < 6 / np.sqrt(noises[0].size)

    def test_secure_noise_is_never_the_same_twice(self, make_guard, make_request, tmp_path):
        replies = [
            make_guard(tmp_path / name, noise_source="secure", noise_stddev=1e6)
            .answer(make_request(1))
            .gradient.values_BCHW.ravel()
            for name in "ab"
        ]
        assert abs(np.corrcoef(replies)[0, 1]) < 6 / np.sqrt(replies[0].size)

    def test_reply_holds_noise_of_the_size_that_was_set(self, make_guard, make_request, tmp_path):
        guard = make_guard(
            tmp_path / "client", noise_source="secure", noise_stddev=50.0, clipping_bound=2.0
        )
        noise = guard.answer(make_request(1)).gradient.values_BCHW
        # 3136 draws of deviation 100; six deviations of their standard deviation.
        assert noise.std() == pytest.approx(100, abs=6 * 100 / np.sqrt(2 * 3136))


def test_a_reply_in_frequencies_is_the_noised_projection_of_the_one_in_pixels(
    make_request, make_guard, tmp_path
):
    """With a bound that clips nothing and the same seed, only basis and noise can differ."""
    settings = {"clipping_bound": 1e4, "noise_stddev": 2e-9}  # 2e-5 on a coordinate
    pixels = make_guard(tmp_path / "pixels", **settings).answer(make_request()).gradient
    asked = make_request(dct_frequencies=8)
    frequencies = make_guard(tmp_path / "frequencies", **settings).answer(asked).gradient
    assert frequencies.values_BCHW.shape == (4, 1, 8, 8)
    assert frequencies.event == pixels.event
    projected = to_release_basis(pixels.values_BCHW, 8)
    assert np.abs(projected).max() > 0.01
    assert np.allclose(frequencies.values_BCHW, projected, atol=2e-4)


def test_clipping_comes_after_the_projection(make_request, make_guard, tmp_path):
    settings = {"clipping_bound": 1e-3, "noise_stddev": 1e-6}
    asked = make_request(dct_frequencies=4)
    values = make_guard(tmp_path / "client", **settings).answer(asked).gradient.values_BCHW
    # The four rows are longer than the bound, whatever is left of them in few frequencies.
    assert np.allclose(np.linalg.norm(values.reshape(4, -1), axis=1), 1e-3, rtol=1e-4)


def test_a_reply_in_frequencies_is_given_again_as_it_was(
    make_request, make_guard, charges, tmp_path
):
    guard, asked = make_guard(tmp_path / "client"), make_request(dct_frequencies=8)
    first, second = guard.answer(asked), guard.answer(replace(asked, uplink_codec="uint1"))
    assert np.array_equal(first.gradient.values_BCHW, second.gradient.values_BCHW)
    assert charges(tmp_path / "client") == 1
    guard.answer(replace(asked, dct_frequencies=9))
    assert charges(tmp_path / "client") == 2


class TestBfloat16:
    """Critics may compute in bfloat16; what is clipped, noised and sent is none of it."""

    SETTINGS = {"critic": "conv", "critic_width": 4, "critic_compute": "bfloat16"}  # noqa: RUF012

    def test_rows_are_clipped_in_full_precision(self, make_guard, make_request, tmp_path):
        bound = 1e-3  # below the norm of every row, so that each is clipped
        guard = without_noise(make_guard, tmp_path / "a", clipping_bound=bound, **self.SETTINGS)
        rows = guard.answer(make_request(1)).gradient.values_BCHW
        norms = np.linalg.norm(rows.reshape(4, -1).astype(np.float64), axis=1)
        # Clipped in bfloat16, a norm could be off by 1/256.
        assert norms == pytest.approx(bound, rel=1e-5)
        assert (norms <= bound * (1 + 1e-6)).all()

    def test_every_value_carries_full_precision_noise(self, make_guard, make_request, tmp_path):
        guard = make_guard(tmp_path / "a", noise_stddev=1.0, **self.SETTINGS)
        values = guard.answer(make_request(1)).gradient.values_BCHW
        assert values.dtype == np.float32
        in_bfloat16 = (values.view(np.uint32) & 0xFFFF) == 0
        assert in_bfloat16.mean() < 0.01  # of all float32 numbers one in 65,536 is

    def test_the_critic_is_kept_in_full_precision(self, make_guard, make_request, tmp_path):
        answered(make_guard(tmp_path / "a", **self.SETTINGS), make_request(1))
        parameters = CriticSlots(tmp_path / "a", "experiment").before(2).parameters
        assert parameters.dtype == np.float32
        assert ((np.array(parameters[0]).view(np.uint32) & 0xFFFF) == 0).mean() < 0.01

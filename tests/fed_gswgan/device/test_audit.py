"""The audit through the guard: a sound folder passes, a guard that is wired wrongly does not."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fed_gswgan.algorithms import solved
from fed_gswgan.device import folder
from fed_gswgan.device import guard as guarding
from fed_gswgan.device.audit import audit_guard
from fed_gswgan.device.guard import Guard
from fed_gswgan.privacy.mechanism import bound, grid_step, noise_deviation, privatize
from fed_gswgan.privacy.noise import SecureNoise, SeededNoise
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.seeding import SeedStream

DRAWS = 2**19
ALL_TRUSTS = """
max-epsilon = 500.0
answer-seconds = 5.0
trust = ["local", "secure-aggregation", "central"]
central-noise-stddev = 2.0
min-honest = 20
max-colluding = 0
max-epsilon-alone = 10000.0
"""
MUCH = "max-epsilon = 1000.0\nclipping = 'message'\n"
LITTLE = "max-epsilon = 10.0\nmax-participations = 3\nclipping = 'message'\n"


def constant_noise():
    return SeededNoise(SeedStream(1).generator("noise"))


def bounded_noise():
    """Three uniforms of the variance of the Gaussian."""

    class Uniforms(SecureNoise):
        def draw(self, values, stddev, step):
            drawn = np.random.default_rng().uniform(-1, 1, (3, *values.shape)).sum(axis=0)
            return np.rint((values + stddev * drawn) / step).astype(np.int64)

    return Uniforms()


def with_constant_noise(monkeypatch):
    monkeypatch.setattr(folder, "SecureNoise", constant_noise)


def with_bounded_noise(monkeypatch):
    monkeypatch.setattr(folder, "SecureNoise", bounded_noise)


def with_the_same_noise_for_two_requests(monkeypatch):
    """The seed is secret and fresh, and the noise is that of the client and the round."""
    secret = SeedStream(int(np.random.default_rng().integers(2**62)))

    def noise(client, number):
        return SeededNoise(secret.generator("noise", number, client))

    opened = partial(folder.open_device, noise=noise)
    monkeypatch.setattr("fed_gswgan.device.audit.open_device", opened)


def with_a_bound_for_each_image(monkeypatch):
    """The sensitivity is multiplied by the number of images, and the noise is not."""

    class ForEach(Guard):
        def _releases(self, ledger, request, clients):
            for view, (update, state) in zip(clients, self._compute(request, clients), strict=True):
                images = len(view.dataset.images)
                wider = replace(
                    request.event,
                    clipping_bound=request.event.clipping_bound * images,
                    noise_stddev=request.event.noise_stddev / images,
                )
                noise = self.noise(view.client_id, request.server_round)
                steps = privatize(update.rows_RN, update.extra_E, wider, noise)
                in_asked_steps = steps * grid_step(wider) / grid_step(request.event)
                yield view.client_id, np.rint(in_asked_steps).astype(np.int64), state

    monkeypatch.setattr(folder, "Guard", ForEach)


def with_extra_numbers_unbounded(monkeypatch):
    def beside_the_bound(rows_RN, extra_E, event, noise):
        steps = privatize(rows_RN, np.zeros_like(extra_E), event, noise)
        unbounded = np.clip(extra_E, -1e3, 1e3) / grid_step(event)
        steps[rows_RN.size :] += np.rint(unbounded).astype(np.int64)
        return steps

    monkeypatch.setattr(guarding, "privatize", beside_the_bound)


def with_a_basis_that_stretches_after_the_bound(monkeypatch):
    def stretched(rows_RN, extra_E, event, noise):
        stretched = 30 * bound(rows_RN, extra_E, event)
        return noise.draw(stretched, noise_deviation(event), grid_step(event))

    monkeypatch.setattr(guarding, "privatize", stretched)


def with_the_basis_applied_after_the_noise(monkeypatch):
    """Each released number is the mean of two noised ones: half the noise, correlated."""

    def mixed(rows_RN, extra_E, event, noise):
        steps = privatize(rows_RN, extra_E, event, noise)
        return (steps + np.roll(steps, 1)) // 2

    monkeypatch.setattr(guarding, "privatize", mixed)


def with_a_policy_that_is_not_asked(monkeypatch):
    monkeypatch.setattr(Policy, "charge", lambda policy, event: event)


def with_a_budget_that_is_not_kept(monkeypatch):
    monkeypatch.setattr(Policy, "admit_spending", lambda policy, spent, event: None)


REFUTED_BY = [
    (with_constant_noise, "noise: differs between processes"),
    (with_constant_noise, "law of a release: local, 40 images"),
    (with_constant_noise, "noise differs where the guard is opened again: local"),
    (with_bounded_noise, "noise: goodness of fit"),
    (with_bounded_noise, "law of a release: local, one image"),
    (with_the_same_noise_for_two_requests, "law of a release: local, 40 images"),
    (with_a_bound_for_each_image, "law of a release: local, 40 images"),
    (with_extra_numbers_unbounded, "law of a release: local, one image"),
    (with_a_basis_that_stretches_after_the_bound, "law of a release: local, one image"),
    (with_the_basis_applied_after_the_noise, "law of a release: local, 40 images"),
    (with_a_policy_that_is_not_asked, "policy: what exceeds it is refused"),
    (with_a_budget_that_is_not_kept, "policy: what exceeds it is refused"),
]
WIRINGS = list(dict.fromkeys(wired for wired, _ in REFUTED_BY))


@pytest.fixture
def solved_device(make_device):
    """Return a function that makes a device of the default critic, which sends 130 numbers."""
    few = {"seed": 3, "points": 2, "feature-components": 6}
    return lambda policy: make_device("solved", policy, training=few)


@pytest.mark.parametrize("wired", WIRINGS, ids=lambda wired: wired.__name__)
def test_a_guard_that_is_wired_wrongly_is_refuted(wired, solved_device, monkeypatch):
    wired(monkeypatch)
    of_budget = wired is with_a_budget_that_is_not_kept
    report = audit_guard(solved_device(LITTLE if of_budget else MUCH), draws=DRAWS)
    wanted = {title for planted, title in REFUTED_BY if planted is wired}
    assert wanted <= set(report.violations)


def contents(device):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in device.iterdir()}


def test_a_sound_guard_passes_and_its_folder_is_as_it_was(solved_device):
    """Not even the images are there; the budget is smaller than what the audit asks."""
    device = solved_device(LITTLE)
    (device.parent / "digits.npz").unlink()
    before = contents(device)
    assert audit_guard(device, draws=DRAWS).violations == ()
    assert contents(device) == before


def test_the_owners_counter_is_left_alone_and_a_budget_of_one_release_is_enough(
    solved_device, tmp_path
):
    program, asked = tmp_path / "counter", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho $1 >> {asked}\necho 1000\n")
    program.chmod(0o700)
    once = LITTLE.replace("max-participations = 3", "max-participations = 1")
    held = f"{once}min-separation-seconds = 3600.0\ncounter = '{program}'\n"
    assert audit_guard(solved_device(held), draws=DRAWS).violations == ()
    assert not asked.exists()


def test_every_trust_model_of_the_policy_is_tried_with_a_trained_critic(make_device):
    report = audit_guard(make_device("all", ALL_TRUSTS), draws=DRAWS)
    assert report.violations == ()
    laws = {check.title for check in report.checks if check.title.startswith("law of a release")}
    assert laws == {
        f"law of a release: {trust}, {world}"
        for trust in ("local", "secure-aggregation", "central")
        for world in ("40 images", "one image")
    }


def test_a_round_that_cannot_be_computed_is_an_error(solved_device, monkeypatch):
    def update(self, request, client):
        raise RuntimeError("no room for temporary files")

    monkeypatch.setattr(solved.SolvedAnswers, "update", update)
    with pytest.raises(ValueError, match=r"cannot be computed .*no room for temporary files"):
        audit_guard(solved_device(MUCH), draws=DRAWS)

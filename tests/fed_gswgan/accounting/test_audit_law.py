import numpy as np
import pytest
from scipy.special import ndtr

from fed_gswgan.accounting.audit_law import (
    TESTS,
    Sample,
    goodness_of_fit,
    normal_scores,
    repeats,
    whole_law,
)

MESSAGES, ROWS, NUMBERS = 16, 20, 30


def sample_of(randomness, deviation, spread=0.0):
    """Return noise as claimed, beside centers that are no whole steps."""
    centers_RN = spread * randomness.standard_normal((ROWS, NUMBERS))
    noise = deviation * randomness.standard_normal((MESSAGES, ROWS, NUMBERS))
    steps_MRN = np.rint(centers_RN + noise)
    return Sample(steps_MRN=steps_MRN, centers_RN=centers_RN, deviation=deviation)


def seeded(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


@pytest.mark.parametrize("deviation", [1.0, 2.5, 1500.0])
@pytest.mark.parametrize("center", [0.0, 0.3, -1000.5])
def test_scores_of_rounded_noise_are_standard_normals(deviation, center):
    noise = deviation * seeded().standard_normal(200_000)
    scores = np.sort(normal_scores(np.rint(center + noise) - center, deviation))
    # Kolmogorov's distance is beyond 2.3 / sqrt(n) once in twenty thousand samples.
    distance = np.abs(ndtr(scores) - (np.arange(len(scores)) + 0.5) / len(scores)).max()
    assert distance < 2.3 / np.sqrt(len(scores))


@pytest.mark.parametrize(("deviation", "spread"), [(1500.0, 0.0), (1500.0, 1e4), (2.5, 3.0)])
def test_noise_as_claimed_fails_a_test_no_more_often_than_allowed(deviation, spread):
    randomness, failed = seeded(1), dict.fromkeys(TESTS, 0)
    for _ in range(100):
        sample = sample_of(randomness, deviation, spread)
        for name, test in TESTS.items():
            failed[name] += test(sample, 0.02)[2]
    # Two are expected at most; more than eleven would be one case in a million.
    assert max(failed.values()) <= 11, failed


def test_an_atom_in_the_tail_is_counted():
    sample = sample_of(seeded(2), 1500.0)
    assert not goodness_of_fit(sample, 1e-6)[2]
    sample.steps_MRN[:, 0, :2] = 6.1 * 1500
    found, _, refuted = goodness_of_fit(
        Sample(steps_MRN=sample.steps_MRN, centers_RN=sample.centers_RN, deviation=1500.0), 1e-6
    )
    assert refuted
    assert "32 draws" in found


@pytest.mark.parametrize("sign", [1, -1])
def test_draws_that_come_again_are_found_wherever_they_are(sign):
    sample = sample_of(seeded(3), 1500.0)
    flat = sample.steps_MRN.reshape(-1)
    assert not repeats(sample, 1e-6)[2]
    flat[5000:5012] = sign * flat[100:112]
    found, _, refuted = repeats(sample, 1e-6)
    assert refuted
    assert "come again 4,900 places later" in found


def test_the_test_that_fails_is_named():
    sample = sample_of(seeded(4), 1500.0)
    shifted = Sample(
        steps_MRN=sample.steps_MRN // 2 * 2, centers_RN=sample.centers_RN, deviation=1500.0
    )
    found, _, refuted = whole_law(shifted, 1e-6)
    assert refuted
    assert found.startswith("last bits: ")

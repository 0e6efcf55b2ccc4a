import numpy as np
import pytest

from fed_gswgan.evaluation.accuracy import (
    average_accuracy,
    calibrated_accuracy,
    ratio_of_mean_accuracies,
)

ON_SAMPLES = {"good": 0.6, "bad": 0.3}
ON_REAL = {"bad": 0.4, "good": 0.8}


def test_the_average_is_the_mean_over_classifiers():
    assert average_accuracy(ON_SAMPLES) == pytest.approx(0.45)


def test_both_readings_agree_where_every_classifier_loses_the_same_share():
    assert calibrated_accuracy(ON_SAMPLES, ON_REAL) == pytest.approx(0.75)
    assert ratio_of_mean_accuracies(ON_SAMPLES, ON_REAL) == pytest.approx(0.75)


def test_a_bad_classifier_weighs_as_much_as_a_good_one_in_the_mean_of_ratios_alone():
    kept = {"good": 0.4, "bad": 0.4}  # half of one classifier's accuracy, all of the other's
    assert calibrated_accuracy(kept, ON_REAL) == pytest.approx((0.5 + 1) / 2)
    assert ratio_of_mean_accuracies(kept, ON_REAL) == pytest.approx(0.8 / 1.2)


def test_both_equal_numpy_on_twelve_classifiers():
    draws = np.random.default_rng(0)
    samples, real = draws.uniform(0.1, 1, (2, 12))
    on_samples = {f"c{number}": float(value) for number, value in enumerate(samples)}
    on_real = {f"c{number}": float(real[number]) for number in reversed(range(12))}
    assert calibrated_accuracy(on_samples, on_real) == pytest.approx((samples / real).mean())
    assert ratio_of_mean_accuracies(on_samples, on_real) == pytest.approx(
        samples.mean() / real.mean()
    )


def test_real_images_as_samples_give_one():
    assert calibrated_accuracy(ON_REAL, ON_REAL) == 1
    assert ratio_of_mean_accuracies(ON_REAL, ON_REAL) == 1


@pytest.mark.parametrize("ratio", [calibrated_accuracy, ratio_of_mean_accuracies])
def test_other_classifiers_and_a_useless_reference_are_refused(ratio):
    with pytest.raises(ValueError, match="classifiers bad: must be measured on samples and on"):
        ratio({"good": 0.5}, ON_REAL)
    with pytest.raises(ValueError, match=r"accuracy-on-real-images=0\.0 must be > 0"):
        ratio(ON_SAMPLES, {"good": 0.8, "bad": 0.0})

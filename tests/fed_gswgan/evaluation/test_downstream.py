import pytest

from fed_gswgan.evaluation.accuracy import downstream_accuracy


def test_samples_like_real_images_train_a_good_classifier(spots):
    labels, test_labels = spots.labels(320), spots.labels(160)
    accuracy = downstream_accuracy(
        spots.draw(labels, 8), labels, spots.draw(test_labels, 9), test_labels, 8, 0, spots.steps
    )
    assert accuracy > 0.95


def test_noise_trains_a_classifier_that_guesses(spots):
    labels, test_labels = spots.labels(320), spots.labels(160)
    accuracy = downstream_accuracy(
        spots.noise(labels, 8), labels, spots.draw(test_labels, 9), test_labels, 8, 0, spots.steps
    )
    assert accuracy < 0.35


def test_mislabelled_samples_train_a_classifier_that_is_always_wrong(spots):
    labels, test_labels = spots.labels(320), spots.labels(160)
    shown = (labels + 4) % spots.classes
    accuracy = downstream_accuracy(
        spots.draw(shown, 8), labels, spots.draw(test_labels, 9), test_labels, 8, 0, spots.steps
    )
    assert accuracy < 0.05


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_seed_decides_and_training_never_sees_the_test_images(spots, monkeypatch):
    from fed_gswgan.evaluation import accuracy as downstream

    trained_on = []

    def train(*arguments):
        trained_on.append(arguments)
        return real_train(*arguments)

    real_train = downstream.train_classifier
    monkeypatch.setattr(downstream, "train_classifier", train)
    labels = spots.labels(80)
    samples, test_images = spots.draw(labels, 8), spots.draw(labels, 9)
    first, again = (
        downstream_accuracy(samples, labels, test_images, labels, 8, 3, 10) for _ in range(2)
    )
    assert first == again
    assert all(arguments[0] is samples for arguments in trained_on)
    assert not any(item is test_images for arguments in trained_on for item in arguments)

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from fed_gswgan.data.whole_dataset import open_whole_dataset
from fed_gswgan.evaluation.lenet import LeNet, cnn_accuracy


def silent(_line):
    pass


def layer(maps, convolution):
    weight, bias = (parameter.detach().double().numpy() for parameter in convolution.parameters())
    return np.stack(
        [
            correlate(maps, kernel, mode="valid")[0] + offset
            for kernel, offset in zip(weight, bias, strict=True)
        ]
    )


def halved(maps):
    channels, height, width = maps.shape
    return maps.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))


def reference(lenet, image):
    """The published layers of one image in NumPy and SciPy."""
    first, second = (part for part in lenet.modules() if isinstance(part, torch.nn.Conv2d))
    maps = np.pad((image.double().numpy() - 0.1307) / 0.3081, ((0, 0), (2, 2), (2, 2)))
    maps = halved(np.maximum(layer(maps, first), 0))
    values = halved(np.maximum(layer(maps, second), 0)).reshape(-1)
    dense = [part for part in lenet.modules() if isinstance(part, torch.nn.Linear)]
    for number, part in enumerate(dense):
        weight, bias = (parameter.detach().double().numpy() for parameter in part.parameters())
        values = weight @ values + bias
        values = values if number == 2 else np.maximum(values, 0)
    return values


def test_the_layers_equal_the_published_ones_in_scipy(spots):
    lenet = LeNet(10)
    images = spots.draw(spots.labels(3), 0)
    with torch.no_grad():
        found = lenet(images)
    for logits, image in zip(found, images, strict=True):
        np.testing.assert_allclose(logits, reference(lenet, image), atol=1e-5)


def test_it_has_as_many_weights_as_the_published_one():
    expected = (25 * 6 + 6) + (25 * 6 * 16 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (850)
    assert sum(parameter.numel() for parameter in LeNet(10).parameters()) == expected == 61_706


@pytest.mark.usefixtures("keeps_global_random_state")
def test_samples_of_the_right_class_teach_it_and_others_do_not(spots):
    labels, test_labels = spots.labels(800), spots.labels(400)
    images, test_images = spots.draw(labels, 1), spots.draw(test_labels, 2)
    good = cnn_accuracy(images, labels, test_images, test_labels, 8, 0, silent, epochs=10)
    wrong = (labels + 4) % 8
    bad = cnn_accuracy(images, wrong, test_images, test_labels, 8, 0, silent, epochs=10)
    assert good > 0.9
    assert bad < 0.05


def test_the_last_line_of_progress_is_the_accuracy(spots):
    labels = spots.labels(64)
    lines = []
    images = spots.draw(labels, 1)
    found = cnn_accuracy(images, labels, images, labels, 8, 0, lines.append, epochs=2)
    assert [line.split(",")[0] for line in lines[:2]] == [
        "lenet: epoch 1 of 2",
        "lenet: epoch 2 of 2",
    ]
    assert lines[2] == f"lenet: accuracy {found:.4f} on 64 real images"


def test_3000_real_digits_teach_it_most_of_the_others(fed_gswgan_data):
    data = open_whole_dataset("mnist", fed_gswgan_data)
    found = cnn_accuracy(
        data.train_images_NCHW[:3000],
        data.train_labels_N[:3000],
        data.test_images_NCHW[:2000],
        data.test_labels_N[:2000],
        10,
        0,
        silent,
        epochs=10,
    )
    assert found > 0.93

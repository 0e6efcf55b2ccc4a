import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn

from fed_gswgan.data.whole_dataset import open_whole_dataset
from fed_gswgan.evaluation.lenet import LeNet, PixelNormalization, cnn_accuracy, train_as_published
from fed_gswgan.seeding import SeedStream


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 8))


def train(spots, count=300, seed=0, epochs=5, progress=lambda line: None, **settings):
    labels = spots.labels(count)
    return train_as_published(
        linear, spots.draw(labels, 1), labels, 0.02, epochs, seed, "test", progress, **settings
    )


def by_hand(images, labels, weight, bias, orders, learning_rates):
    """SGD with momentum 0.9 and weight decay 1e-4 in NumPy, for one linear layer."""
    rows = images.flatten(1).double().numpy()
    parameters = [weight.T.copy(), bias.copy()]
    velocities = [np.zeros_like(parameter) for parameter in parameters]
    for order, learning_rate in zip(orders, learning_rates, strict=True):
        for start in range(0, len(order), 128):
            chosen = order[start : start + 128]
            logits = rows[chosen] @ parameters[0] + parameters[1]
            error = np.exp(logits - logits.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(len(chosen)), labels[chosen]] -= 1
            gradients = [rows[chosen].T @ error / len(chosen), error.mean(axis=0)]
            for parameter, velocity, gradient in zip(
                parameters, velocities, gradients, strict=True
            ):
                velocity *= 0.9
                velocity += gradient + 1e-4 * parameter
                parameter -= learning_rate * velocity
    return parameters


def test_five_epochs_equal_sgd_by_hand_with_the_rate_falling_before_the_fifth(spots):
    trained = train(spots)
    seeds = SeedStream(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.torch_seed("test weights"))
        start = linear()[1]
    draws = seeds.generator("test order")
    labels = spots.labels(300)
    weight, bias = by_hand(
        spots.draw(labels, 1),
        labels.numpy(),
        start.weight.detach().double().numpy(),
        start.bias.detach().double().numpy(),
        [draws.permutation(300) for _ in range(5)],
        [0.02, 0.02, 0.02, 0.02, 0.002],
    )
    np.testing.assert_allclose(trained[1].weight.detach().T, weight, atol=1e-5)
    np.testing.assert_allclose(trained[1].bias.detach(), bias, atol=1e-5)
    assert (trained[1].weight - start.weight).abs().max() > 1e-2


def test_a_last_batch_of_one_image_is_left_out_since_it_has_no_variance(spots):
    labels = spots.labels(129)
    trained = train_as_published(
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(28 * 28), nn.Linear(28 * 28, 8)),
        spots.draw(labels, 1),
        labels,
        0.02,
        1,
        0,
        "test",
        lambda line: None,
    )
    assert int(trained[1].num_batches_tracked) == 1
    assert not trained.training


def test_no_epoch_and_no_second_image_are_refused(spots):
    with pytest.raises(ValueError, match="epochs=0"):
        train(spots, epochs=0)
    with pytest.raises(ValueError, match="training-images=1"):
        train(spots, count=1)


def test_normalisation_is_mnists():
    images = torch.tensor([0.1307, 0.1307 + 0.3081])
    torch.testing.assert_close(PixelNormalization()(images), torch.tensor([0.0, 1.0]))


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


@pytest.mark.usefixtures("keeps_global_random_state")
def test_samples_of_the_right_class_teach_it_and_others_do_not(spots):
    labels, test_labels = spots.labels(800), spots.labels(400)
    images, test_images = spots.draw(labels, 1), spots.draw(test_labels, 2)
    good = cnn_accuracy(images, labels, test_images, test_labels, 8, 0, silent, epochs=10)
    wrong = (labels + 4) % 8
    bad = cnn_accuracy(images, wrong, test_images, test_labels, 8, 0, silent, epochs=10)
    assert good > 0.9
    assert bad < 0.05


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

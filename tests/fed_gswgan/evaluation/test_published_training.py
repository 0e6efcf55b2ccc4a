import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fed_gswgan.evaluation.lenet import PixelNormalization, train_as_published
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


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_seed_decides_the_weights(spots):
    first, again, other = (train(spots, seed=seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_progress_tells_each_epoch_and_the_loss_falls(spots):
    lines = []
    train(spots, progress=lines.append)
    assert lines[0].startswith("test: epoch 1 of 5, training loss ")
    assert float(lines[4].split()[-1]) < float(lines[0].split()[-1])


def test_every_batch_is_augmented(spots):
    sizes = []

    def blacken(images, generator):
        sizes.append(len(images))
        return torch.zeros_like(images)

    trained = train(spots, epochs=1, augmentation=blacken)
    assert sizes == [128, 128, 44]
    assert trained[1].weight.abs().max() < 1 / 28  # the start, less a little decay: nothing learned


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


def test_training_works_where_gradients_are_switched_off(spots):
    with torch.no_grad():
        off = train(spots, epochs=1)
    assert torch.equal(off[1].weight, train(spots, epochs=1)[1].weight)
    assert functional.mse_loss(off[1].bias, torch.zeros(8)) > 0

from dataclasses import replace

import pytest
import torch

from fed_gswgan.baselines.private_autoencoder import (
    Autoencoder,
    AutoencoderSettings,
    train_private_autoencoder,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.seeding import SeedStream

BOUND = 0.7
TINY = AutoencoderSettings(
    hidden_width=6, code_dim=3, steps=4, batch_size=5, learning_rate=0.01, clipping_bound=BOUND
)


def images(count=30):
    return torch.rand((count, 1, 28, 28), generator=torch.Generator().manual_seed(5))


def trained(seed=0, noise_multiplier=1.0, settings=TINY, data=None, progress=lambda share: None):
    data = images() if data is None else data
    network = train_private_autoencoder(
        data, settings, noise_multiplier, SeedStream(seed), progress
    )
    return torch.nn.utils.parameters_to_vector(network.parameters())


def test_the_noise_of_a_step_has_the_stated_deviation():
    # SGD of rate 1 moves each weight by its noisy gradient over the expected batch size.
    class PlainSGD(torch.optim.SGD):
        def __init__(self, weights, lr):
            super().__init__(weights, lr=1.0)

    settings = replace(TINY, steps=1, hidden_width=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", PlainSGD)
        noisy, quiet = trained(noise_multiplier=50.0, settings=settings), trained(
            noise_multiplier=0.0, settings=settings
        )  # fmt: skip
    assert (noisy - quiet).std().item() == pytest.approx(50 * BOUND / 5, rel=0.02)


def test_codes_have_norm_one_and_decode_to_images():
    network = Autoencoder(IMAGE_SHAPE, 6, 3)
    network.requires_grad_(False)
    codes_BD = network.codes(images())
    assert codes_BD.norm(dim=1) == pytest.approx(torch.ones(30), abs=1e-6)
    decoded = network.decoded(codes_BD)
    assert decoded.shape == (30, 1, 28, 28)
    assert torch.allclose(decoded.flatten(1), torch.sigmoid(network(images())))


def test_it_learns_to_tell_two_images_apart():
    pair = images(2).round().repeat(100, 1, 1, 1)
    settings = replace(TINY, steps=150, batch_size=50, hidden_width=30, learning_rate=0.02)
    network = train_private_autoencoder(pair, settings, 0.5, SeedStream(0), lambda share: None)
    errors = (network.decoded(network.codes(pair[:2])) - pair[:2]).abs().mean()
    assert errors < 0.2  # without telling them apart, 0.25


def test_the_same_seed_gives_the_same_weights_and_leaves_global_randomness_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first, second, other = trained(1), trained(1), trained(2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_progress_grows_to_one():
    told = []
    trained(progress=told.append)
    assert told == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_width": 0}, "hidden-width=0 must"),
        ({"code_dim": 1}, "code-dim=1 must"),
        ({"steps": 0}, "steps=0 must"),
        ({"batch_size": 0}, "batch-size=0 must"),
        ({"learning_rate": 0.0}, "learning-rate=0.0 must"),
        ({"clipping_bound": -1.0}, "clipping-bound=-1.0 must"),
    ],
)
def test_nonsense_is_named(changed, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        replace(TINY, **changed)

import torch

from fed_gswgan.baselines.subpixel_generator import SubpixelGenerator
from fed_gswgan.data.characters import IMAGE_SHAPE


def generator():
    torch.manual_seed(0)
    return SubpixelGenerator(IMAGE_SHAPE, latent_dim=3, num_classes=4, hidden_width=6, channels=4)


def test_samples_are_images_that_depend_on_latent_and_label():
    network, latents = generator(), torch.randn(5, 3)
    samples = network(latents, torch.zeros(5, dtype=torch.int64))
    assert samples.shape == (5, 1, 28, 28)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert not torch.equal(samples[0], samples[1])
    assert not torch.equal(samples, network(latents, torch.ones(5, dtype=torch.int64)))


def test_after_training_a_sample_depends_on_its_own_row_alone():
    network, latents = generator(), torch.randn(5, 3)
    labels = torch.arange(5) % 4
    network(latents, labels)
    network.eval()
    alone = network(latents[:1], labels[:1])
    assert torch.allclose(network(latents, labels)[:1], alone, atol=1e-6)


def test_images_start_as_background():
    samples = generator()(torch.randn(20, 3), torch.arange(20) % 4)
    assert 0.05 < samples.mean() < 0.25

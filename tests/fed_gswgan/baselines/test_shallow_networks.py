import torch

from fed_gswgan.baselines.shallow_networks import ShallowDiscriminator, ShallowGenerator
from fed_gswgan.data.characters import IMAGE_SHAPE


def test_the_generator_maps_latents_and_labels_to_images():
    generator = ShallowGenerator(IMAGE_SHAPE, latent_dim=4, num_classes=3, width=8)
    latents_BZ = torch.zeros(3, 4)
    samples_BCHW = generator(latents_BZ, torch.arange(3))
    assert samples_BCHW.shape == (3, 1, 28, 28)
    assert samples_BCHW.min() >= 0
    assert samples_BCHW.max() <= 1
    assert not torch.equal(samples_BCHW[0], samples_BCHW[1])


def test_the_discriminator_scores_an_image_under_its_label():
    discriminator = ShallowDiscriminator(IMAGE_SHAPE, num_classes=3, width=8)
    images_BCHW = torch.full((3, 1, 28, 28), 0.5)
    logits_B = discriminator(images_BCHW, torch.arange(3))
    assert logits_B.shape == (3,)
    assert len(set(logits_B.tolist())) == 3


def test_published_widths_give_the_published_number_of_weights():
    generator, discriminator = (
        ShallowGenerator(IMAGE_SHAPE, 100, 10),
        ShallowDiscriminator(IMAGE_SHAPE, 10),
    )
    assert sum(p.numel() for p in generator.parameters()) == 111 * 128 + 129 * 784
    assert sum(p.numel() for p in discriminator.parameters()) == 795 * 128 + 129

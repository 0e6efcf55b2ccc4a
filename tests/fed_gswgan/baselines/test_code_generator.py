import pytest
import torch

from fed_gswgan.baselines.code_generator import CodeGenerator, DecodedGenerator
from fed_gswgan.baselines.private_autoencoder import Autoencoder
from fed_gswgan.data.characters import IMAGE_SHAPE


def test_codes_that_are_generated_have_norm_one():
    generator = CodeGenerator(latent_dim=2, num_classes=4, width=5, code_dim=3)
    codes_BD = generator(torch.randn(9, 2), torch.arange(9) % 4).detach()
    assert codes_BD.norm(dim=1) == pytest.approx(torch.ones(9), abs=1e-6)
    assert not torch.allclose(codes_BD[0], codes_BD[4])


def test_samples_are_the_codes_decoded():
    generator = CodeGenerator(latent_dim=2, num_classes=4, width=5, code_dim=3).eval()
    autoencoder, latents_BZ, labels_B = (
        Autoencoder(IMAGE_SHAPE, 6, 3),
        torch.randn(4, 2),
        torch.arange(4),
    )
    samples_BCHW = DecodedGenerator(generator, autoencoder)(latents_BZ, labels_B)
    assert samples_BCHW.shape == (4, 1, 28, 28)
    assert torch.equal(samples_BCHW, autoencoder.decoded(generator(latents_BZ, labels_B)))

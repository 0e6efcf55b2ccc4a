"""Conditional generators: slim (for a CPU), DCGAN, and the paper's ResNet.

Height and width of an image must be divisible by 4. Pixel norm replaces batch norm in all
generators: a sample depends on its own latent and label alone.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

EPSILON = 1e-8  # Source: arXiv 1710.10196, section 4.2


def quarter_of(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (H/4, W/4) of an image shape (C, H, W).

    Raises:
        ValueError: another number of dimensions, or height or width not divisible by 4.
    """
    if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[1] % 4 or image_shape[2] % 4:
        raise ValueError(
            f"image_shape={image_shape} must be (channels, height, width) with height and width "
            "divisible by 4 for a convolutional network; pad or resize the images, or choose "
            "critic='mlp' for a critic of any shape"
        )
    return image_shape[1] // 4, image_shape[2] // 4


def eighth_of(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (H/8, W/8), rounded up; ValueError as ``quarter_of``."""
    height, width = quarter_of(image_shape)
    return -(-height // 2), -(-width // 2)


class PixelNorm(nn.Module):
    """Scale the feature vector of every pixel to unit mean square over the channels.

    No parameters, no running statistics, and no mixing of rows, unlike batch norm.

    Source: Karras et al., Progressive Growing of GANs (arXiv 1710.10196), section 4.2.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise over dimension 1.

        Args:
            features: ``(B, P)`` or ``(B, C, H, W)``, any finite range. A vector that is all zero
                stays zero.

        Returns:
            The same shape; at each pixel the mean square over channels is 1.
        """
        return features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + EPSILON)


def _doubled(features_BCHW: Tensor) -> Tensor:
    return functional.interpolate(features_BCHW, scale_factor=2.0, mode="nearest")


def _doubled_and_convolved(features_BCHW: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return the 3x3 convolution of the up-sampled features, as one of the features themselves.

    A 3x3 window over doubled pixels meets 2x2 different ones. With the weights that meet the same
    pixel added up first, it is a transposed convolution of stride 2: 16 products for a pixel of the
    features and a pair of channels, in place of 36.
    """
    around = functional.pad(layer.weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
    kernel = functional.avg_pool2d(around, 2, stride=1, divisor_override=1)  # sums, 4x4 of them
    return functional.conv_transpose2d(features_BCHW, kernel, layer.bias, stride=2, padding=1)


class SlimGenerator(nn.Module):
    """Features of a quarter of the image's size, upsampled twice, pixel norm after every layer.

    Pixel norm and not batch norm: a sample must depend on its own latent and label alone, or the
    gradient with respect to one sample would not be that sample's. The class embedding is as long
    as the latent and half as strong: a larger one drowns the latent, and every class collapses to
    one shape.
    """

    def __init__(
        self, image_shape: tuple[int, ...], latent_dim: int, num_classes: int, width: int = 32
    ) -> None:
        super().__init__()
        self.quarter = quarter_of(image_shape)
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.class_embedding = nn.Embedding(num_classes, latent_dim)
        nn.init.normal_(self.class_embedding.weight, std=0.5)
        self.to_quarter = nn.Linear(2 * latent_dim, 2 * width * math.prod(self.quarter))
        self.to_half = nn.Conv2d(2 * width, width, 3, padding=1)
        self.to_whole = nn.Conv2d(width, width // 2, 3, padding=1)
        self.to_image = nn.Conv2d(width // 2, image_shape[0], 3, padding=1)
        self.norm = PixelNorm()
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW, float32 in [0, 1], ink 1, of the classes asked for."""
        condition = torch.cat([latents_BZ, self.class_embedding(labels_B)], dim=1)
        features = self.to_quarter(condition).unflatten(1, (-1, *self.quarter))
        # Channels beside each other in memory: a sixth less time on a CPU, through all layers.
        features = features.contiguous(memory_format=torch.channels_last)
        features = self.norm(self.activation(features))
        for layer in (self.to_half, self.to_whole):
            features = self.norm(self.activation(_doubled_and_convolved(features, layer)))
        return torch.sigmoid(self.to_image(features))


class DCGANGenerator(nn.Module):
    """Dense to an eighth of the size, then three transposed convolutions (4 -> 7 -> 14 -> 28).

    The class enters as an embedding as long as the latent, joined to it, so that neither outweighs
    the other at the dense layer.

    Pixel norm stands where DCGAN has batch norm. A sample must be a function of its own latent and
    label alone: the gradient a client returns for one row is then the gradient of that row, and not
    also of the rows that happened to share its batch. It also leaves no running statistics, so
    ``train()`` and ``eval()`` are the same function.

    Source: layer plan after Radford et al., DCGAN (arXiv 1511.06434), section 3; pixel norm from
    Karras et al. (arXiv 1710.10196), section 4.2.
    """

    def __init__(
        self, image_shape: tuple[int, ...], latent_dim: int, num_classes: int, width: int = 64
    ) -> None:
        """Build the layers, initialised from torch's global generator.

        Args:
            image_shape: (C, H, W) of a sample; H and W divisible by 4.
            latent_dim: Numbers in a latent.
            num_classes: Labels are 0 to ``num_classes - 1``.
            width: Channels at half the size; twice as many at a quarter, four times at an eighth.
        """
        super().__init__()
        quarter = quarter_of(image_shape)
        self.eighth = eighth_of(image_shape)
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.class_embedding = nn.Embedding(num_classes, latent_dim)
        self.dense = nn.Linear(2 * latent_dim, 4 * width * math.prod(self.eighth))
        # From an eighth, rounded up, of n pixels to a quarter of 2n - 1 or 2n.
        extra = 1 - quarter[0] % 2, 1 - quarter[1] % 2
        self.to_quarter = nn.ConvTranspose2d(
            4 * width, 2 * width, 5, stride=2, padding=2, output_padding=extra
        )
        self.to_half = nn.ConvTranspose2d(
            2 * width, width, 5, stride=2, padding=2, output_padding=1
        )
        # A kernel the stride divides reaches every pixel equally often: no checkerboard.
        # Source: Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016.
        self.to_whole = nn.ConvTranspose2d(width, image_shape[0], 6, stride=2, padding=2)
        self.pixel_norm = PixelNorm()

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Generate one sample per latent.

        Args:
            latents_BZ: ``(B, latent_dim)`` float32.
            labels_B: ``(B,)`` int64 in ``[0, num_classes)``.

        Returns:
            ``(B, C, H, W)`` float32 in [0, 1].
        """
        joined = torch.cat((latents_BZ, self.class_embedding(labels_B)), dim=1)
        features_BCHW = self.dense(joined).unflatten(1, (-1, *self.eighth))
        for layer in (self.to_quarter, self.to_half, self.to_whole):
            features_BCHW = layer(functional.relu(self.pixel_norm(features_BCHW)))
        return torch.sigmoid(features_BCHW)


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class ResNetGenerator(nn.Module):
    """Dense to an eighth of the size, three residual blocks, a convolution, the centre.

    An eighth is rounded up, so the blocks may reach 4 pixels more than the image: of 28 pixels,
    4 -> 8 -> 16 -> 32, and the middle 28 of them are the sample.

    The class enters as an embedding as long as the latent, joined to it, so that neither outweighs
    the other at the dense layer. Spectral norm is on every layer with weights except the embedding;
    pixel norm, never batch norm, so a sample is a function of its own latent and label.

    Regenerating samples. Spectral norm estimates each layer's largest singular value by one power
    iteration, whose vectors are buffers. A forward in ``train()`` mode moves them, with or without
    gradients, and so moves the next sample of the same latent. In ``eval()`` mode forward is pure,
    and still differentiates through the norm. Samples sent out and samples regenerated from kept
    latents for the step therefore agree if both forwards run in ``eval()`` mode, and the vectors
    follow the weights by exactly one forward in ``train()`` mode after each optimizer step (one
    row and ``no_grad`` are enough). The vectors are part of ``state_dict()``: a checkpoint or a
    moving average of the parameters without them generates other samples.

    Source: GS-WGAN (arXiv 2006.08265), which trains a class-conditional ResNet generator; blocks
    after Gulrajani et al. (arXiv 1704.00028); spectral norm from Miyato et al. (arXiv 1802.05957),
    algorithm 1; pixel norm from Karras et al. (arXiv 1710.10196), section 4.2.
    """

    def __init__(
        self, image_shape: tuple[int, ...], latent_dim: int, num_classes: int, width: int = 64
    ) -> None:
        """Build the layers, initialised from torch's global generator, in ``train()`` mode.

        Args:
            image_shape: (C, H, W) of a sample; H and W divisible by 4.
            latent_dim: Numbers in a latent.
            num_classes: Labels are 0 to ``num_classes - 1``.
            width: A quarter of the channels, which are the same at every resolution.
        """
        super().__init__()
        self.eighth = eighth_of(image_shape)
        self.size = image_shape[1:]
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        channels = 4 * width
        self.class_embedding = nn.Embedding(num_classes, latent_dim)
        self.dense = _normed(nn.Linear(2 * latent_dim, channels * math.prod(self.eighth)))
        self.blocks = nn.Sequential(*(_UpsamplingBlock(channels) for _ in range(3)))
        self.pixel_norm = PixelNorm()
        self.to_pixels = _normed(nn.Conv2d(channels, image_shape[0], 3, padding=1))

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Generate one sample per latent.

        Args:
            latents_BZ: ``(B, latent_dim)`` float32.
            labels_B: ``(B,)`` int64 in ``[0, num_classes)``.

        Returns:
            ``(B, C, H, W)`` float32 in [0, 1].
        """
        joined = torch.cat((latents_BZ, self.class_embedding(labels_B)), dim=1)
        features_BCHW = self.blocks(self.dense(joined).unflatten(1, (-1, *self.eighth)))
        logits_BCHW = self.to_pixels(functional.relu(self.pixel_norm(features_BCHW)))
        height, width = self.size
        top, left = (logits_BCHW.shape[2] - height) // 2, (logits_BCHW.shape[3] - width) // 2
        return torch.sigmoid(logits_BCHW[..., top : top + height, left : left + width])


class _UpsamplingBlock(nn.Module):
    """Double the resolution; two 3x3 convolutions added to a 1x1 shortcut, norm and ReLU first.

    Source: Gulrajani et al. (arXiv 1704.00028), the ResNet architectures of the appendix, with
    pixel norm in the place of batch norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pixel_norm = PixelNorm()
        self.first = _normed(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = _normed(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = _normed(nn.Conv2d(channels, channels, 1))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, 2H, 2W)``."""
        residual = functional.relu(self.pixel_norm(features_BCHW))
        residual = _doubled_and_convolved(residual, self.first)
        residual = self.second(functional.relu(self.pixel_norm(residual)))
        # A 1x1 convolution commutes with nearest up-sampling, and costs a quarter before it.
        upsampled_BCHW: Tensor = _doubled(self.shortcut(features_BCHW)) + residual
        return upsampled_BCHW


def _normed(layer: Layer) -> Layer:
    """Put the layer's weights under spectral norm, with biases that start at zero.

    The norm divides the weights and not the biases, which at torch's default would drown what the
    dense layer makes of the latent.
    """
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    parametrizations.spectral_norm(layer)
    return layer

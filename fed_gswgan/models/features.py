"""Public features of an image: distances between them mean differences of shape.

Features are low frequencies of the frame and, beside them, principal components of the hidden
layers of a small network that was trained on drawn characters alone. Both are fixed before a run,
and depend on no client's data.

Shapes: N images, C channels, H and W image, F frequencies of an axis, K components, A activations.
"""

import hashlib
from functools import cached_property

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.basis import cosines

POOLED = 4  # a hidden layer's rows and columns
NETWORK_SHARE = 4.0  # of the features that a field is measured in
AT_ONCE = 1000  # images


class HiddenLayers(nn.Module):
    """Three convolutions with batch normalisation and SiLU of one-channel images.

    They are at a half, a half and a quarter of the image's side.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = _convolution(1, width, kernel=5, stride=2)
        self.second = _convolution(width, 2 * width, kernel=3, stride=1)
        self.third = _convolution(2 * width, 2 * width, kernel=3, stride=1)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the second and the third convolution."""
        second = self.second(self.first(images_NCHW))
        return second, self.third(functional.avg_pool2d(second, 2))


class FeatureNetwork(nn.Module):
    """Classifier whose two last hidden layers are features; a dense layer follows them."""

    def __init__(self, num_classes: int, width: int = 32, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = HiddenLayers(width)
        self.dense = nn.Sequential(
            nn.AdaptiveAvgPool2d(7),
            nn.Flatten(),
            nn.Linear(2 * width * 49, hidden),
            nn.BatchNorm1d(hidden, affine=False),
            nn.SiLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return a logit for each class, (N, L)."""
        logits_NL: Tensor = self.dense(self.hidden(images_NCHW)[1])
        return logits_NL


def _convolution(channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
    )


class NetworkComponents(nn.Module):
    """Principal components of a network's hidden layers, over public images.

    Each layer is pooled to 4 x 4 and divided by its root mean square length; of both together the
    first K principal components are taken.
    """

    layer_scales: Tensor
    mean_A: Tensor
    basis_KA: Tensor
    variances_K: Tensor

    def __init__(self, hidden: HiddenLayers, components: int) -> None:
        super().__init__()
        self.hidden = hidden.eval().requires_grad_(False)
        activations = 4 * hidden.width * POOLED**2
        self.register_buffer("layer_scales", torch.ones(2))
        self.register_buffer("mean_A", torch.zeros(activations))
        self.register_buffer("basis_KA", torch.zeros(components, activations))
        self.register_buffer("variances_K", torch.ones(components))

    @torch.no_grad()
    def fit(self, images_NCHW: Tensor) -> None:
        """Take the components of these images; N must be at least K."""
        layers = self._layers(images_NCHW)
        lengths = [(layer - layer.mean(0)).square().sum(1).mean().sqrt() for layer in layers]
        self.layer_scales = torch.stack(lengths)
        activations_NA = self._scaled(layers)
        self.mean_A = activations_NA.mean(0)
        _, _, directions = torch.linalg.svd(activations_NA - self.mean_A, full_matrices=False)
        self.basis_KA = directions[: len(self.basis_KA)].clone()
        projected_NK = (activations_NA - self.mean_A) @ self.basis_KA.T
        self.variances_K = projected_NK.square().mean(0)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the components, (N, K), with the variances that the fit found."""
        activations_NA = self._scaled(self._layers(images_NCHW))
        projected_NK: Tensor = (activations_NA - self.mean_A) @ self.basis_KA.T
        return projected_NK

    def _scaled(self, layers: list[Tensor]) -> Tensor:
        """Return both layers side by side, each in units of its length, (N, A)."""
        pairs = zip(layers, self.layer_scales, strict=True)
        return torch.cat([layer / scale for layer, scale in pairs], 1)

    def _layers(self, images_NCHW: Tensor) -> list[Tensor]:
        """Return both layers, pooled and flat, (N, A / 2) each; images go through in batches."""
        batches = [
            [functional.adaptive_avg_pool2d(layer, POOLED).flatten(1) for layer in layers]
            for layers in map(self.hidden, torch.split(images_NCHW, AT_ONCE))
        ]
        return [torch.cat(layer) for layer in zip(*batches, strict=True)]


class Features(nn.Module):
    """phi: the lowest F x F frequencies of square images, and a network's first components.

    Args:
        frequencies: F, at least 1.
        components: of a network; None: frequencies alone.
        count: how many components.
        share: root mean square length of the network's part, over the images of its fit.
    """

    def __init__(
        self,
        frequencies: int,
        components: NetworkComponents | None = None,
        count: int = 0,
        share: float = NETWORK_SHARE,
    ) -> None:
        super().__init__()
        if components is None:
            count = 0
        elif not 1 <= count <= len(components.basis_KA):
            raise ValueError(
                f"feature-components={count} must be 1..{len(components.basis_KA)}, which the "
                "network has"
            )
        self.frequencies, self.components, self.count = frequencies, components, count
        self.share = share

    def size(self, image_shape: tuple[int, ...]) -> int:
        """Return how many features an image of this shape has."""
        return image_shape[0] * self.frequencies**2 + self.count

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the features, float32 (N, D); gradients flow to the images."""
        components = None if self.components is None else self.components(images_NCHW)
        return self.of(images_NCHW, components)

    def of(self, images_NCHW: Tensor, components_NK: Tensor | None) -> Tensor:
        """Return the features of images whose components are known."""
        waves = torch.from_numpy(cosines(images_NCHW.shape[-1])[: self.frequencies])
        waves_FW = waves.to(images_NCHW)
        parts = [(waves_FW @ images_NCHW @ waves_FW.T).flatten(1)]
        if self.components is not None and components_NK is not None:
            length = self.components.variances_K[: self.count].sum().sqrt()
            parts.append(self.share / length * components_NK[:, : self.count])
        return torch.cat(parts, 1)

    def hash(self) -> str:
        """Return the SHA-256 of all weights and numbers that decide the features, computed once."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        state = {name: t.contiguous().cpu() for name, t in self.state_dict().items()}
        state["settings"] = torch.tensor([self.frequencies, self.count, self.share])
        return hashlib.sha256(save(dict(sorted(state.items())))).hexdigest()

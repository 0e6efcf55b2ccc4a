"""A convolution as one product of matrices, weights times patches of its inputs.

Many convolutions, each with weights of its own, are then one batched product, which is what a GPU
is made for, and in float32 throughout. On a processor ``ConvolutionLayer``, which becomes one
convolution in groups, is several times faster.

Shapes: R rows, C channels of the inputs, O of the outputs, H W image, P pixels of an output.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.training.linear_layer import LinearLayer, linear_layer


class PatchLayer(LinearLayer):
    """Takes channels of pixels; ValueError if its padding is given by name."""

    def __init__(self, module: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__(module, dtype)
        if isinstance(module.padding, str):
            raise ValueError(f"padding={module.padding!r} must be a number of pixels")
        (self._kernel, _), (self._stride, _) = module.kernel_size, module.stride
        self._padding = module.padding[0]

    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return the convolution, and the bias where asked for."""
        products = self.weight.flatten(1) @ self._patches(inputs)
        if bias:
            products = products + self.bias[:, None]
        height, width = (self._outputs_along(size) for size in inputs.shape[2:])
        return products.view(-1, len(inputs), height, width).transpose(0, 1)

    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the transposed convolution, the sum of patches that overlap."""
        patches = self.weight.flatten(1).T @ slopes.transpose(0, 1).flatten(1)
        patches_RFP = patches.reshape(len(patches), len(slopes), -1).transpose(0, 1)
        return functional.fold(
            patches_RFP,
            inputs.shape[2:],
            self._kernel,
            padding=self._padding,
            stride=self._stride,
        )

    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the correlation of inputs and slopes."""
        found = slopes.transpose(0, 1).flatten(1) @ self._patches(inputs).T
        return found.view_as(self.weight)

    def _patches(self, inputs: Tensor) -> Tensor:
        """Return what each output pixel of each row sees, a column each: (C x kernel^2, R x P)."""
        padded = functional.pad(inputs, [self._padding] * 4)
        for axis in (2, 3):
            padded = padded.unfold(axis, self._kernel, self._stride)
        return padded.permute(1, 4, 5, 0, 2, 3).flatten(0, 2).flatten(1)

    def _outputs_along(self, size: int) -> int:
        return (size + 2 * self._padding - self._kernel) // self._stride + 1


def patch_layer(module: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> LinearLayer:
    """Return the map that a layer is, a convolution by patches."""
    if isinstance(module, nn.Conv2d):
        return PatchLayer(module, dtype)
    return linear_layer(module, dtype)

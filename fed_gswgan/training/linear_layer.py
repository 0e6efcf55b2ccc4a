"""A dense layer or a convolution as a linear map: its outputs, its slopes in inputs and weights.

Shapes: inputs, outputs and the slopes of either have a row a sample, in the layer's own shape.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight


class LinearLayer(ABC):
    """A layer with its weights in the type to compute in.

    Args:
        module: has weight and bias, which keep their type.
        dtype: of inputs, outputs and slopes.

    Raises:
        ValueError: the module has no bias.
    """

    def __init__(self, module: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> None:
        if module.bias is None:
            raise ValueError(f"{module} must have a bias")
        self._dtype = module.weight.dtype
        self.weight, self.bias = module.weight.to(dtype), module.bias.to(dtype)

    @abstractmethod
    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return the layer's outputs, with or without its bias."""

    @abstractmethod
    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the slopes in the inputs, of which only the shape is used, of those in outputs."""

    @abstractmethod
    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the slopes in the weights, summed over the rows, of those in outputs."""

    def gradient(
        self, slopes: Tensor, inputs: Tensor, rows_with_bias: int
    ) -> tuple[Tensor, Tensor]:
        """Return that of weights and bias, in their own type; only the first rows had a bias."""
        all_but_outputs = [0, *range(2, slopes.ndim)]
        of_bias = slopes[:rows_with_bias].sum(all_but_outputs, dtype=self._dtype)
        return self.weight_slopes(slopes, inputs).to(self._dtype), of_bias


class DenseLayer(LinearLayer):
    """Takes the numbers of a row, in whatever shape."""

    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return ``W x``, and the bias where asked for."""
        return functional.linear(inputs.flatten(1), self.weight, self.bias if bias else None)

    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return ``W^T y``."""
        return (slopes @ self.weight).view_as(inputs)

    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the sum of ``y x^T``."""
        return slopes.T @ inputs.flatten(1)


class ConvolutionLayer(LinearLayer):
    """Takes channels of pixels."""

    def __init__(self, module: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__(module, dtype)
        self._geometry: tuple[Any, ...] = module.stride, module.padding

    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return the convolution, and the bias where asked for."""
        return functional.conv2d(inputs, self.weight, self.bias if bias else None, *self._geometry)

    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the transposed convolution.

        Of a grey image that is a product of matrices for each sample and then the sum of patches
        that overlap, several times faster than oneDNN's convolution with one channel.
        """
        if inputs.shape[1] == 1:
            patches = self.weight.flatten(1).T @ slopes.flatten(2)
            size, kernel = inputs.shape[2:], self.weight.shape[2:]
            stride, padding = self._geometry
            return functional.fold(patches, size, kernel, padding=padding, stride=stride)
        found: Tensor = conv2d_input(inputs.shape, self.weight, slopes, *self._geometry)  # type: ignore[no-untyped-call]
        return found

    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the correlation of inputs and slopes."""
        found: Tensor = conv2d_weight(inputs, self.weight.shape, slopes, *self._geometry)  # type: ignore[no-untyped-call]
        return found


def linear_layer(module: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> LinearLayer:
    """Return the map that a layer is."""
    if isinstance(module, nn.Linear):
        return DenseLayer(module, dtype)
    return ConvolutionLayer(module, dtype)

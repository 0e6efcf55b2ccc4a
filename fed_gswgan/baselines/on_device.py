"""A network on an accelerator, for code that draws and keeps its batches on the CPU."""

import torch
from torch import Tensor, nn

from fed_gswgan.evaluation.samplers import Sampler
from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.models.trainer import sampler_of


class OnDevice(nn.Module):
    """Moves what goes in to ``device`` and what comes out back; on the CPU it does nothing.

    Gradients pass through the moves, so a gradient penalty and a sample gradient work as before.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network.to(device)
        self._device = device

    def forward(self, inputs: Tensor, labels_B: Tensor) -> Tensor:
        """Return ``network(inputs, labels_B)`` on the device of ``inputs``."""
        output: Tensor = self.network(inputs.to(self._device), labels_B.to(self._device))
        return output.to(inputs.device)


def sampler_on_labels_device(generator: nn.Module, config: GeneratorSettings) -> Sampler:
    """Return a sampler of an ``OnDevice`` generator, whose samples lie where the labels do."""
    draw = sampler_of(generator, config)
    return lambda labels_B, seed: draw(labels_B, seed).to(labels_B.device)

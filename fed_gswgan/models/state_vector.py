"""A network as one flat array: all that its output depends on, in the order of its state dict."""

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def to_state_vector(network: nn.Module) -> np.ndarray:
    """Return float32 (P,): parameters, and buffers that are real numbers."""
    parts = [tensor.reshape(-1) for tensor in _tensors(network)]
    return torch.cat(parts).numpy().astype(np.float32)


@torch.no_grad()
def load_state_vector(network: nn.Module, vector_P: np.ndarray) -> None:
    """Put a vector back into a network of the same shape.

    Raises:
        ValueError: the vector belongs to a network of another size.
    """
    expected = sum(tensor.numel() for tensor in _tensors(network))
    if vector_P.shape != (expected,):
        raise ValueError(f"state vector has shape {vector_P.shape}, must be {(expected,)}")
    values_P = torch.from_numpy(np.array(vector_P))
    start = 0
    for tensor in _tensors(network):
        tensor.copy_(values_P[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [t for t in network.state_dict().values() if t.is_floating_point()]

"""A critic and its Adam moments as one flat array, and back."""

import numpy as np
import torch
from torch import nn


def to_vector(critic: nn.Module, optimizer: torch.optim.Adam) -> tuple[np.ndarray, int]:
    """Return (float32 (3, P): weights, first and second moments; Adam steps taken).

    Of a critic that never took a step there is nothing to keep: P is 0.
    """
    if not optimizer.state:
        return np.empty((3, 0), dtype=np.float32), 0
    rows: list[list[torch.Tensor]] = [[], [], []]
    steps = 0
    for parameter in critic.parameters():
        state = optimizer.state[parameter]
        steps = int(state["step"])
        for row, tensor in zip(
            rows, (parameter.detach(), state["exp_avg"], state["exp_avg_sq"]), strict=True
        ):
            row.append(tensor.reshape(-1))
    return torch.stack([torch.cat(row) for row in rows]).numpy(), steps


def from_vector(
    critic: nn.Module, optimizer: torch.optim.Adam, vector: np.ndarray, steps: int
) -> None:
    """Load what ``to_vector`` returned into a critic of the same shape and its optimizer.

    Raises:
        ValueError: the vector belongs to a critic of another size.
    """
    expected = sum(parameter.numel() for parameter in critic.parameters())
    if vector.shape != (3, expected):
        raise ValueError(f"critic state has shape {vector.shape}, must be {(3, expected)}")
    values = torch.from_numpy(np.array(vector))  # one copy, of which all below are views
    start = 0
    for parameter in critic.parameters():
        stop = start + parameter.numel()
        weights, first, second = (row[start:stop].view_as(parameter) for row in values)
        parameter.data = weights
        optimizer.state[parameter] = {
            "step": torch.tensor(float(steps)),
            "exp_avg": first,
            "exp_avg_sq": second,
        }
        start = stop

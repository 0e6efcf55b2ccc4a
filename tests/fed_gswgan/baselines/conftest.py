"""Images of four classes that mean nothing, for tests of how a baseline trains."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def data() -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a function that returns so many (images_NCHW, labels_N), the same each time."""

    def draw(count: int = 40) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(5)
        return torch.rand((count, 1, 28, 28), generator=generator), torch.arange(count) % 4

    return draw

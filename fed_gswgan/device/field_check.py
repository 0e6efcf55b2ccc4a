"""Checks of a request's fields that every kind of request shares; what they refuse has a name."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fed_gswgan.privacy.refusals import MalformedInput

LARGEST_ROUND = 2**40
LONGEST_WORD = 64


def check_types(request: Any, types: Mapping[str, type]) -> None:
    """Require exactly these types of a request's fields."""
    for name, expected in types.items():
        if type(value := getattr(request, name)) is not expected:
            raise MalformedInput(
                f"{name.replace('_', '-')} is a {type(value).__name__}, must be {expected.__name__}"
            )


def check_word(name: str, word: str) -> None:
    """Require a short word that can be printed."""
    if len(word) > LONGEST_WORD or not word.isprintable():
        raise MalformedInput(
            f"{name} of {len(word)} characters must be printable and have at most {LONGEST_WORD}"
        )


def check_round(name: str, value: int, lowest: int = 1, highest: int = LARGEST_ROUND) -> None:
    """Require a round, or another whole number, between two others."""
    if not lowest <= value <= highest:
        # Python writes no number of more than some thousand digits.
        shown = value if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
        raise MalformedInput(f"{name}={shown} must lie in {lowest} .. {highest}")


def check_array(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    """Require exactly this dtype and shape."""
    if array.dtype != dtype or array.shape != shape:
        raise MalformedInput(
            f"{name} is {array.dtype} of shape {array.shape}, must be {dtype.__name__} of {shape}"
        )

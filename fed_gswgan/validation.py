"""Range checks whose message names the setting, its value and the rule.

Each check takes exactly one keyword, so the name in the message is the caller's own:
``positive(clipping_bound=0)`` raises ``ValueError: clipping-bound=0 must be > 0``.
"""

import math
from collections.abc import Callable, Iterable, Mapping


def positive(**named: float) -> None:
    """Require a finite value > 0."""
    _require(named, lambda value: math.isfinite(value) and value > 0, "must be > 0 and finite")


def non_negative(**named: float) -> None:
    """Require a finite value >= 0."""
    _require(named, lambda value: math.isfinite(value) and value >= 0, "must be >= 0 and finite")


def at_least(minimum: int, **named: int) -> None:
    """Require a whole number >= ``minimum``."""
    _require(
        named,
        lambda value: math.isfinite(value) and value == int(value) >= minimum,
        f"must be a whole number >= {minimum}",
    )


def between(low: float, high: float, **named: float) -> None:
    """Require ``low < value < high``."""
    rule = f"must lie strictly between {low} and {high}"
    _require(named, lambda value: low < value < high, rule)


def share(**named: float) -> None:
    """Require a share of a whole."""
    _require(named, lambda value: 0 <= value <= 1, "must lie in [0, 1]")


def one_of(allowed: Iterable[str], **named: str) -> None:
    """Require one of the allowed words."""
    words = tuple(allowed)
    ((name, value),) = named.items()
    if value not in words:
        raise ValueError(f"{_setting(name)}={value!r} must be one of {', '.join(words)}")


def _require(named: Mapping[str, float], holds: Callable[[float], bool], rule: str) -> None:
    ((name, value),) = named.items()
    # A bool is an int to Python, and a mistake to whoever wrote it in a config.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_setting(name)}={value!r} must be a number")
    if math.isnan(value) or not holds(value):
        raise ValueError(f"{_setting(name)}={value} {rule}")


def _setting(name: str) -> str:
    return name.replace("_", "-")

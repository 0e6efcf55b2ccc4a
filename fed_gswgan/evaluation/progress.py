"""How a long evaluation tells its caller where it is."""

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one line about what was just done."""

"""What needs an optional dependency says which extra of the package brings it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Import what an extra brings, or say how to install it.

    Args:
        extra: a name of ``[project.optional-dependencies]``.
        what: the one that needs it, as ``methods=dp-merf-ae``.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} needs an extra that is not installed ({error}): "
            f"in a checkout, pip install '.[{extra}]'"
        ) from error

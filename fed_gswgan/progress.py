"""How far a long step is: whoever does it tells, and a terminal shows it with the time left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Watcher = Callable[[str, int, int], None]  # title, how much is done, of how much

_watchers: list[Watcher] = []
Of = TypeVar("Of")


def tell(title: str, done: int, total: int) -> None:
    """Tell how far a step is, if anybody watches."""
    for watcher in _watchers:
        watcher(title, done, total)


def steps(title: str, items: Sequence[Of]) -> Iterator[Of]:
    """Yield the items of a step, and tell how many are done; its end is told in any case."""
    try:
        for done, item in enumerate(items):
            tell(title, done, len(items))
            yield item
    finally:
        tell(title, len(items), len(items))


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let ``watcher`` be told all that happens in the block, in this process."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)

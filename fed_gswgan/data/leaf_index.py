"""Where in a LEAF file each user's object lies, so that one user is read without the others.

A LEAF file is one JSON object: ``users`` and ``num_samples`` are lists of the same length,
``user_data`` maps each user to ``{"x": [[...], ...], "y": [...]}``. The only objects inside it are
``user_data`` and the users', hence one pass over the bytes finds them; numbers are not parsed.
"""

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

_KEY_BEFORE = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*$')
_LONGEST_KEY_BYTES = 1000
_LABELS = re.compile(rb'"y"\s*:\s*(\[[^\[\]]*\])')


@dataclass(frozen=True)
class UserSpan:
    """The bytes of one user's object in one file."""

    path: Path
    user: str
    start: int
    end: int
    image_count: int

    @property
    def origin(self) -> str:
        """What an error names."""
        return f"{self.path}:user_data/{self.user}"

    def read_labels(self) -> list[Any]:
        """Return ``y`` without parsing a pixel."""
        match = _LABELS.search(self._bytes())
        if match is None:
            raise ValueError(f"{self.origin}: must hold a list 'y'")
        return self._counted(_parsed(match[1], f"{self.origin}/y"), "y")

    def read(self) -> tuple[list[Any], list[Any]]:
        """Return ``x`` and ``y``."""
        try:
            # What follows the object (a comma, the file's last brace) is not of this user.
            content, _ = json.JSONDecoder().raw_decode(self._bytes().decode())
            return self._counted(content["x"], "x"), self._counted(content["y"], "y")
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.origin}: must be an object with lists 'x' and 'y' ({error!r})"
            ) from error

    def _counted(self, values: list[Any], key: str) -> list[Any]:
        if len(values) != self.image_count:
            raise ValueError(
                f"{self.origin}/{key}: {len(values)} entries, and num_samples says "
                f"{self.image_count}; the file is damaged"
            )
        return values

    def _bytes(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.end - self.start)


def index_users(path: Path) -> list[UserSpan]:
    """Find every user of one file.

    Raises:
        ValueError: the file is not of LEAF's layout, or a user has no image.
    """
    if not path.stat().st_size:
        raise ValueError(f"{path}: must be a LEAF file, and is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        users, sizes = _list(content, "users", path), _list(content, "num_samples", path)
        found = list(_object_keys(content))
        bounds = [*(start for _, start in found), len(content)]
    spans = {user: extent for (user, _), extent in zip(found, pairwise(bounds), strict=True)}
    spans.pop("user_data", None)
    if not len(spans) == len(users) == len(sizes) or set(spans) != set(users):
        raise ValueError(
            f"{path}: 'users', 'num_samples' and 'user_data' must name the same users, each once; "
            f"they have {len(users)}, {len(sizes)} and {len(spans)}"
        )
    counts = dict(zip(users, sizes, strict=True))
    for user, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{path}: num_samples of user {user!r} is {count!r} and must be >= 1")
    return [UserSpan(path, user, *spans[user], counts[user]) for user in users]


def _object_keys(content: mmap.mmap) -> Iterator[tuple[str, int]]:
    """Find each key whose value is an object, and where the object begins.

    Braces are rare among the numbers, so looking for them is as fast as reading the file.
    """
    position = content.find(b"{")  # the whole file's, which has no key
    while (position := content.find(b"{", position + 1)) != -1:
        before = content[max(0, position - _LONGEST_KEY_BYTES) : position]
        if match := _KEY_BEFORE.search(before):
            yield str(json.loads(b'"' + match[1] + b'"')), position


def _list(content: mmap.mmap, key: str, path: Path) -> list[Any]:
    match = re.search(rb'"%s"\s*:\s*(\[[^\[\]]*\])' % key.encode(), content)
    if match is None:
        raise ValueError(f"{path}: must be a LEAF file with a list {key!r}, and has none")
    return _parsed(match[1], f"{path}:{key}")


def _parsed(text: bytes, origin: str) -> list[Any]:
    try:
        return list(json.loads(text))
    except ValueError as error:
        raise ValueError(f"{origin}: must be a JSON list ({error}); the file is damaged") from error

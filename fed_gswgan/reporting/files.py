"""Replacing a file in one piece, so that a crash leaves the old one or the new one."""

import json
import os
from pathlib import Path
from typing import Any

from fed_gswgan.privacy.durable_file import sync_folder


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, bring it to disk, and move it there."""
    draft = path.with_name(f".{path.name}.draft")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def replace_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, in one piece; not-a-number and infinity are refused."""
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

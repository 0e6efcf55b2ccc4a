"""A frozen settings class from a flat kebab-case table, and back; a value as TOML writes it."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Value = bool | int | float | str
Role = TypeVar("Role")


def from_table(role: type[Role], table: Mapping[str, Any]) -> Role:
    """Build ``role`` from its own keys of ``table``; a missing key takes the field's default.

    Raises:
        ValueError: a value of the wrong type, or one that the class refuses.
    """
    values = {}
    for item in fields(role):  # type: ignore[arg-type]
        key = _key(item.name)
        if key in table:
            values[item.name] = _of_type(key, table[key], item.type)
    return role(**values)


def to_table(settings: Any) -> dict[str, Value]:
    """Return the fields of a settings object by key."""
    return {_key(item.name): getattr(settings, item.name) for item in fields(settings)}


def toml_value(value: Value | list[str]) -> str:
    """Return a setting as TOML writes it; its ``inf`` is no JSON, and no surrogate pair is TOML."""
    if isinstance(value, float):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _of_type(key: str, value: Any, expected: Any) -> Any:
    """Accept exactly the field's type, and a whole number where a float is asked."""
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ValueError(f"{key}={value!r} must be of type {expected.__name__}")
    return value


def _key(name: str) -> str:
    return name.replace("_", "-")

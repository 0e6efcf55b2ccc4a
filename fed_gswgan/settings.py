"""Settings as frozen pydantic models with kebab-case keys, read from and written as flat tables."""

import difflib
import importlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Value = bool | int | float | str
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def kebab(name: str) -> str:
    """Return the key of a field: ``noise_stddev`` is ``noise-stddev``."""
    return name.replace("_", "-")


class Settings(BaseModel):
    """Base of every settings class: frozen, strict about types, without unknown keys.

    The string below a field is its line in ``[tool.flwr.app.config]``.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", alias_generator=kebab, populate_by_name=True,
        use_attribute_docstrings=True,
    )  # fmt: skip

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "") -> Self:
        """Build from a flat kebab-case table; a missing key takes its default.

        Args:
            table: key to value, as TOML has them; a list stands for a tuple.
            where: named at the start of an error, a file for instance.

        Raises:
            ValueError: an unknown key, with the nearest known one; a value of the wrong type or
                out of range.
        """
        check_keys(table, cls.keys(), where)
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise ValueError(where + explain(error)) from None

    def to_table(self) -> dict[str, Any]:
        """Return the flat table that builds these very settings."""
        return {kebab(name): getattr(self, name) for name in type(self).model_fields}

    @classmethod
    def keys(cls) -> list[str]:
        """Return every key."""
        return [kebab(name) for name in cls.model_fields]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with a byte order mark or without.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not TOML in UTF-8; names the file and the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None


def check_keys(table: Iterable[str], known: Iterable[str], where: str = "") -> None:
    """Refuse an unknown key and name the nearest known one."""
    known = list(known)
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{where}{key}: no such setting; {hint}")


def explain(error: ValidationError) -> str:
    """Return the first failure as ``key=value must ...``."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:
        return message
    key = kebab(".".join(str(part) for part in first["loc"]))
    message = message.replace("should be", "must be")
    return (
        f"{key} must be given"
        if first["type"] == "missing"
        else f"{key}={first['input']!r} {message}"
    )


def toml_value(value: Any) -> str:
    """Return a setting as TOML writes it; its ``inf`` is no JSON, and no surrogate pair is TOML."""
    if isinstance(value, float):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def plug_in(setting: str, name: str, members: Sequence[str]) -> Any:
    """Import ``package.module:Class`` for a setting.

    Raises:
        ValueError: it cannot be imported, or lacks a member.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{setting}={name!r}: {error}; install it, or fix the name") from error
    if missing := [member for member in members if not hasattr(found, member)]:
        raise ValueError(f"{setting}={name!r} has no {', '.join(missing)}")
    return found

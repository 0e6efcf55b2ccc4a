"""Which way imports point: what a module may not import, checked by parsing it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APPS = ("server", "client", "simulations")
AROUND = (
    "deploy",
    "benchmarks",
    "examples",
    "tests",
)  # what uses the packages, and is in none of them
# The layers of the library, from the top; a lower one knows no higher one.
TOP = tuple(
    f"fed_gswgan.{name}"
    for name in (
        "cli", "commands", "config", "device", "wire", "reporting", "evaluation", "baselines",
        "accounting",
    )
)  # fmt: skip
NETWORKS = tuple(
    f"fed_gswgan.{name}" for name in ("algorithms", "critics", "field", "priors", "models")
)
PRIVACY = ("fed_gswgan.privacy",)

# Folder, what its modules may not import, and the subfolders that are free to.
RULES = [
    ("fed_gswgan", (*APPS, *AROUND), ("fed_gswgan/cli.py",)),
    ("fed_gswgan", ("flwr",), ("fed_gswgan/wire",)),
    ("server", ("client", "simulations", *AROUND), ()),
    ("client", ("server", "simulations", *AROUND), ()),
    ("simulations", AROUND, ()),
    ("fed_gswgan/models", (*TOP, *PRIVACY, *NETWORKS[:4]), ()),
    ("fed_gswgan/data", (*TOP, *PRIVACY, *NETWORKS), ()),
    ("fed_gswgan/privacy", (*TOP, *NETWORKS, "fed_gswgan.data"), ()),
    ("fed_gswgan/wire", (*NETWORKS, "fed_gswgan.data", "fed_gswgan.device"), ()),
    (
        "fed_gswgan/accounting",
        tuple(name for name in TOP if name != "fed_gswgan.accounting") + NETWORKS,
        (),
    ),
    ("fed_gswgan/algorithms", (*TOP, *PRIVACY), ()),
    ("fed_gswgan/critics", (*TOP, *PRIVACY, "fed_gswgan.algorithms"), ()),
    ("fed_gswgan/field", (*TOP, *PRIVACY, "fed_gswgan.algorithms"), ()),
    ("fed_gswgan/priors", (*TOP, *PRIVACY, "fed_gswgan.algorithms"), ()),
    ("fed_gswgan/evaluation", PRIVACY, ()),
]


def imports_of(path: Path, root: Path) -> Iterator[str]:
    """Yield the absolute dotted name of everything that a module imports, wherever it does."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(
    root: Path, folder: str, forbidden: tuple[str, ...], free: tuple[str, ...] = ()
) -> list[str]:
    """Return ``path imports name`` for every forbidden import under ``folder``."""
    return [
        f"{path.relative_to(root).as_posix()} imports {name}"
        for path in sorted((root / folder).rglob("*.py"))
        if not any(path.is_relative_to(root / place) for place in free)
        for name in imports_of(path, root)
        if any(name == banned or name.startswith(f"{banned}.") for banned in forbidden)
    ]


@pytest.mark.parametrize(("folder", "forbidden", "free"), RULES)
def test_no_module_imports_what_its_folder_may_not(folder, forbidden, free):
    assert violations(ROOT, folder, forbidden, free) == []


@pytest.mark.parametrize("folder", sorted({folder for folder, _, _ in RULES}))
def test_every_rule_is_about_a_folder_with_modules(folder):
    assert len(list((ROOT / folder).rglob("*.py"))) > 1


def made_up_tree(root: Path, text: str, path: str = "library/inner/module.py") -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "import banned",
        "import math, banned.part as other",
        "from banned import part",
        "from banned.part import thing",
        "def late():\n    from banned import part",
        "if True:\n    import banned",
        "from library import secret",
        "from library.secret.part import thing",
        "from .. import secret",
        "from ..secret import thing",
    ],
)
def test_the_checker_catches_a_violation_however_it_is_written(tmp_path, text):
    root = made_up_tree(tmp_path, text)
    (found,) = violations(root, "library", ("banned", "library.secret"))
    assert found.startswith("library/inner/module.py imports ")


@pytest.mark.parametrize(
    "text",
    [
        "import math",
        "import banned_not",
        "from banned_not import banned",
        "from library.secretary import thing",
        "from . import secret",
        "name = 'import banned'",
    ],
)
def test_the_checker_lets_other_names_pass(tmp_path, text):
    root = made_up_tree(tmp_path, text)
    assert violations(root, "library", ("banned", "library.secret")) == []


def test_the_checker_spares_the_folders_that_are_free(tmp_path):
    made_up_tree(tmp_path, "import banned", "library/wire/codec.py")
    root = made_up_tree(tmp_path, "import banned", "library/wired/codec.py")
    found = violations(root, "library", ("banned",), ("library/wire",))
    assert found == ["library/wired/codec.py imports banned"]

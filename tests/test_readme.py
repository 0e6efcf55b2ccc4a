"""What README.md promises a reader of the code."""

import ast
import re
from pathlib import Path

import pytest

from fed_gswgan.config import defaults
from fed_gswgan.device.folder import DeviceSettings
from fed_gswgan.privacy.policy import Policy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", README, flags=re.MULTILINE)
SCREEN = 45


def named_functions() -> list[tuple[str, str, str]]:
    """Return (what it does, dotted name, file) for each function that the table names."""
    found = []
    for what, where in ROWS:
        waiting: list[str] = []
        for name, path in re.findall(r"`([\w.]+)`|\]\(([\w/]+\.py)\)", where):
            if name:
                waiting.append(name)
            else:
                found += [(what, pending, path) for pending in waiting]
                waiting = []
    return found


def lines_of(dotted: str, path: str) -> int:
    """Return how many lines the function has, its docstring left out."""
    body = ast.parse((ROOT / path).read_text()).body
    node: ast.AST | None = None
    for part in dotted.split("."):
        node = next(n for n in body if getattr(n, "name", None) == part)
        body = node.body
    assert isinstance(node, ast.FunctionDef)
    first = node.body[1] if ast.get_docstring(node) else node.body[0]
    return node.end_lineno - first.lineno + 1


@pytest.mark.parametrize(("what", "dotted", "path"), named_functions())
def test_each_function_that_matters_is_where_the_readme_says_and_fits_on_a_screen(
    what, dotted, path
):
    assert lines_of(dotted, path) <= SCREEN


def test_the_table_names_who_clips_adds_noise_reserves_and_combines():
    said = " ".join(what for what, _, _ in named_functions())

    for verb in ("clips", "noise", "reserves", "combines"):
        assert verb in said


PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/*.md")))]
FOLDERS = "fed_gswgan|server|client|simulations|deploy|benchmarks|examples|tests"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_or_names_is_there(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    named = re.findall(rf"`((?:{FOLDERS})/[\w/.-]+)`", text)
    modules = re.findall(rf"python -m ((?:{FOLDERS})[.\w]+)", text)

    for link in links:
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link
    for path in [*named, *(f"{module.replace('.', '/')}.py" for module in modules)]:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_gives_is_known(page):
    text = (ROOT / page).read_text()
    known = {*defaults(), *Policy.keys(), *DeviceSettings.keys()}

    for key in re.findall(r"--set '?([\w-]+)=|`([a-z-]+) = [^`]+`", text):
        assert "".join(key) in known | {"KEY"}, key

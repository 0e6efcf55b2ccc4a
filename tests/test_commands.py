"""Commands that README.md and docs/ print: each is parsed, and those of seconds run as printed."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
import torch
import typer
from PIL import Image

from deploy import loopback
from fed_gswgan.cli import app, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<'(\w+)'(.*?)\n(.*?)^\1$", flags=re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"^(\w)=\"(.*)\"$")

# Why a command is not run here: the first words that it begins with.
NOT_RUN = {
    "make simulate": "minutes; tests/simulations/test_demo.py runs it",
    "make test": "runs this very test",
    "make install": "a package registry; what every test stands on",
    "python -m deploy.loopback": "minutes; tests/e2e run federations on loopback",
    "python -m benchmarks": "minutes of measurement",
    "python -m simulations.tables": "minutes of training",
    "python -m fed_gswgan.wire.supernode": "a server, with words left out",
    "python -m examples.federated_digits": "a minute; tests/examples runs it",
    "python -m deploy.certificates": "writes for a server by name; tests/deploy runs it",
    "fed-gswgan run": "minutes on Ray; tests/simulations runs the same with fewer rounds",
    "fed-gswgan resume": "the run is not there; tests/simulations resumes others",
    "fed-gswgan compare": "minutes to days; tests/simulations/tables runs small ones",
    "fed-gswgan prior train": "minutes to hours; tests/fed_gswgan/commands/test_prior.py trains",
    "fed-gswgan status": "a federation that runs",
    "fed-gswgan device check": "a server to reach",
    "fed-gswgan device serve": "serves until it is stopped",
    "fed-gswgan device roster": "keys of other people; commands/test_device.py has some",
    "fed-gswgan ledger verify runs": "a federation that ran",
    "fed-gswgan privacy explain runs": "a federation that ran",
    "fed-gswgan privacy calibrate ...": "words left out",
    "fed-gswgan privacy audit": "most of a minute; commands/test_privacy.py runs it",
    "fed-gswgan privacy table": "tens of seconds; commands/test_privacy.py runs it",
    "fed-gswgan prior show": "tens of seconds; commands/test_prior.py runs it",
    "fed-gswgan device init /device": "runs in a container",
    "fed-gswgan device init /var": "needs root",
}
NAMES = set(typer.main.get_group(app).commands)


class Command(NamedTuple):
    """A command of a page, in the words that a shell makes of it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


def commands_of(page: Path) -> list[Command]:
    """Return this project's commands on a page; a variable is replaced by what it was set to."""
    found = []
    for language, block in BLOCK.findall(page.read_text()):
        if language != "bash" and not block.startswith("python -m"):
            continue
        text = HERE_DOCUMENT.sub(lambda match: match[2], block).replace("\\\n", " ")
        variables: dict[str, str] = {}
        for line in text.splitlines():
            if assigned := ASSIGNMENT.match(line):
                variables[assigned[1]] = assigned[2]
                continue
            for name, value in variables.items():
                line = line.replace(f"${name} ", f"{value} ")
            for simple in simple_commands(line):
                if words := ours(simple):
                    found.append(Command(page.name, tuple(words)))
    return found


def simple_commands(line: str) -> list[list[str]]:
    """Return the words of each command of a line, between ``;``, ``&``, ``&&`` and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set(";&|()<>"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def ours(words: list[str]) -> list[str]:
    """Return the words from the program of this project on; none if there is none."""
    for place, word in enumerate(words):
        program = word.rpartition("/")[2]
        if program == "fed-gswgan" and set(words[place + 1 : place + 2]) & NAMES:
            return ["fed-gswgan", *words[place + 1 :]]
        if program == "make" or (program == "python" and words[place + 1 : place + 2] == ["-m"]):
            return [program, *words[place + 1 :]]
    return []


COMMANDS = [command for page in PAGES for command in commands_of(page)]
QUICK = [command for command in COMMANDS if not str(command).startswith(tuple(NOT_RUN))]


def test_the_pages_print_commands_and_each_reason_belongs_to_one():
    assert len(COMMANDS) > 60
    assert len(QUICK) > 15
    for beginning in NOT_RUN:
        assert any(str(command).startswith(beginning) for command in COMMANDS), beginning


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS), ids=str)
def test_every_word_of_a_command_is_known(command):
    for word in command.words:
        if word.startswith(("simulations/", "deploy/", "examples/", "docs/")):
            assert (ROOT / word).exists(), word
    program, *words = command.words
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "python":
        assert ROOT.joinpath(*words[1].split(".")).with_suffix(".py").exists()
        if words[1] == "deploy.loopback":
            loopback._parser().parse_args(words[2:])
    elif "..." in words:
        last = in_full(words[: words.index("...")])[0]
        assert isinstance(last, click.Command)
    else:
        last, rest = in_full(words)
        last.make_context("fed-gswgan", rest)


def in_full(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that the words name, and the words that it gets."""
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found is not None
        command = found
    return command, words


@pytest.fixture
def place(tmp_path, monkeypatch, small_run, few_steps):
    """A folder with what the pages suppose: a run, an owner's images, settings and policy."""
    monkeypatch.chdir(tmp_path)
    for folder in ("simulations", "deploy"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


def block_of(page: str, start: str) -> str:
    """Return the lines of a page from the one that begins so to the end of its block."""
    text = (ROOT / "docs" / page).read_text()
    return text[text.index(start) :].partition("\n```")[0].partition("\nTOML")[0]


def draw_classes(folder: Path, seed: int) -> None:
    """Draw a picture of each of ten classes."""
    pixels = np.random.default_rng(seed).integers(0, 60, (10, 28, 28), np.uint8)
    for label, gray_HW in enumerate(pixels):
        path = folder / str(label) / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(255 - gray_HW).save(path)


def make_device(place: Path) -> None:
    """Make what docs/device.md begins with, from the files that the other pages print."""
    draw_classes(place / "alice" / "images", 0)
    (place / "alice" / "images").chmod(0o700)
    (place / "run.toml").write_text(block_of("deployment.md", 'dataset = "devices"'))
    (place / "policy.toml").write_text(block_of("privacy.md", "max-epsilon = 10.0"))


@pytest.mark.parametrize("command", dict.fromkeys(QUICK), ids=str)
def test_a_command_of_seconds_runs_as_printed(command, place, small_run, capsys):
    words = list(command.words[1:])
    if "RUN" in words:
        run = small_run(rounds=1, evaluation_samples=0)
        words = [str(run) if word == "RUN" else word for word in words]
    if "samples.npz" in words and words[0] == "evaluate":
        from fed_gswgan.evaluation.samplers import write_samples

        labels = torch.arange(40) % 10
        write_samples(place / "samples.npz", torch.rand(40, 1, 28, 28) / 4, labels)
    if "my-images" in words:
        for seed, writer in enumerate(("ada", "bob", "cleo")):
            draw_classes(place / "my-images" / writer, seed)
    if words[0] == "device" or "DEVICE" in words:
        make_device(place)
        init = next(c for c in QUICK if str(c).startswith("fed-gswgan device init"))
        device = [word.replace("/srv/alice", str(place / "alice")) for word in init.words[1:]]
        assert main(device) == 0
        if words[0] == "device":
            return
        changes = {"DEVICE": str(place / "alice" / "device"), "/media/backup": str(place / "b")}
        words = [changes.get(word, word) for word in words]
    assert main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out

"""Whole simulations: the same weights on every runtime and after a kill; exact epsilon; errors."""

import errno
import fcntl
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fed_gswgan.cli import main as cli
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.shards import shard_of
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import LEDGER, Ledger
from fed_gswgan.privacy.mechanism import NeighboringRelation, compose
from fed_gswgan.reporting.logs import PACKAGES
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import Checkpoint
from fed_gswgan.settings import read_toml
from simulations import run
from simulations.run import Simulation, main
from tests.conftest import SMALL
from tests.plug_ins import DEADLY_ROUND, KILL

CONFIGS = sorted(Path("simulations/configs").glob("*.toml"))
TOY = {"dataset": "tests.plug_ins:Colours", "classes": "all", "max-clients": 0}


@pytest.fixture(autouse=True)
def process():
    """Undo what a run does to its process: handlers of log lines. It puts back those of signals."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(name) for name in (*PACKAGES, "flwr")]
    before = [(log.level, log.handlers, log.propagate) for log in loggers]
    yield
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    for log, (level, handlers_before, propagate) in zip(loggers, before, strict=True):
        log.setLevel(level)
        log.handlers, log.propagate = handlers_before, propagate


def words(folder, runtime=("--runtime", "in-process", "--workers", "1"), **changed):
    table = SMALL | {key.replace("_", "-"): value for key, value in changed.items()}
    settings = [f"--set={key}={json.dumps(value)}" for key, value in table.items()]
    return [*runtime, "--output", str(folder), *settings]


def resuming(folder, *more, workers="1"):
    return ["--resume", str(folder), "--runtime", "in-process", "--workers", workers, *more]


def weights(folder):
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    return load_file(folder / "checkpoint" / index["tensors"])


def same_weights(first, second):
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def charges(folder):
    """Return (user, round) of every ledger line of all clients, oldest first in each shard."""
    lines = {}
    for shard in sorted((folder / "clients").glob("shard-*")):
        with Ledger(shard, durable=False) as ledger:
            ledger.verify()
            lines[shard.name] = [(line.user, line.server_round) for line in ledger.lines()]
    return lines


def everybody(lines):
    return sorted(line for of_shard in lines.values() for line in of_shard)


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def everything_in(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The same run, whoever carries its messages.


def test_ray_gives_what_one_process_gives_to_the_bit(tmp_path):
    """Trained critics that remember, in four shards on two workers, against one process."""
    folders = [tmp_path / name for name in ("ray", "one")]
    assert main(words(folders[0], ("--runtime", "ray", "--workers", "2"), rounds=3)) == 0
    shards = json.loads((folders[0] / "run.json").read_text())["shards"]
    assert shards == 4
    assert main(words(folders[1], rounds=3)) == 0
    assert same_weights(*folders)
    found = [everybody(charges(folder)) for folder in folders]
    assert found[0] == found[1]
    assert len(found[0]) == 3 * 3
    summaries = [summary_of(folder) for folder in folders]
    assert [summary["runtime"] for summary in summaries] == ["ray", "in-process"]
    assert summaries[0]["bytes"]["by_client"] == summaries[1]["bytes"]["by_client"]
    assert summaries[0]["privacy"] == summaries[1]["privacy"]


def test_a_plug_in_algorithm_runs_on_ray_from_the_command_line(tmp_path):
    """Of a module outside the package, on a data set of another, by its name alone."""
    table = TOY | {"algorithm": "tests.plug_ins:Ratio", "algorithm-settings": "last-round = 2"}
    config = tmp_path / "run.toml"
    config.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()))
    options = ["--output", str(tmp_path / "run"), "--workers", "1", "--set", "noise-stddev=0.1"]
    options += ["--set", "evaluation-samples=0", "--set", "cohort-size=3"]
    assert cli(["run", str(config), *options]) == 0
    summary = summary_of(tmp_path / "run")
    assert (summary["runtime"], summary["rounds"]) == ("ray", 2)
    assert summary["finish"]["steps"] == 2
    assert summary["replies"]["received"] == 6


@pytest.mark.parametrize("trust", ["local", "secure-aggregation", "central"])
@pytest.mark.parametrize("algorithm", ["gs-wgan", "fedavg-gan", "tests.plug_ins:Ratio"])
def test_every_algorithm_runs_under_every_trust(small_run, algorithm, trust):
    """And the ledgers hold epsilon by the formula: mu = 2 sqrt(parts x rounds) / noise."""
    changed = {"algorithm": algorithm, "trust": trust, "honest-share": 1.0, "rounds": 2}
    if "Ratio" in algorithm:
        changed |= TOY
    folder = small_run(**changed)
    rounds, summary = read_rounds(folder), summary_of(folder)
    assert [line["stepped"] for line in rounds] == [True, True]
    assert all(line["received"] == 3 for line in rounds)
    parts = SMALL["batch-size"] if algorithm == "gs-wgan" else 1
    by_user = {}
    for shard in (folder / "clients").glob("shard-*"):
        with Ledger(shard, durable=False) as ledger:
            for user, events in ledger.releases().items():
                by_user[user] = compose(events, NeighboringRelation.REPLACE_ONE)
                releases = events.total()
                expected = 2 * math.sqrt(parts * releases) / SMALL["noise-stddev"]
                assert by_user[user] == pytest.approx(expected)
    epsilon = gaussian_epsilon(max(by_user.values()), 1e-5)
    privacy = summary["privacy"]
    assert privacy["epsilon_max"] == pytest.approx(epsilon)
    assert privacy["epsilon_server_bound"] == pytest.approx(epsilon)
    assert (privacy["trust_model"], privacy["participations_max"]) == (trust, 2)
    assert not list((folder / "clients").rglob("failures.log"))


def test_a_run_calibrated_to_epsilon_spends_it_and_no_more(small_run):
    """Whoever is asked in every round ends at the target, and the last round is not refused."""
    folder = small_run(noise_stddev=0.0, epsilon=50.0, rounds=3, cohort_size=4)
    assert [line["received"] for line in read_rounds(folder)] == [4, 4, 4]
    privacy = summary_of(folder)["privacy"]
    assert privacy["epsilon_max"] == pytest.approx(50, rel=1e-9)
    assert privacy["epsilon_max"] <= 50
    assert privacy["noise_stddev"] == pytest.approx(
        Config.from_table({**SMALL, "noise-stddev": 0.0, "epsilon": 50.0, "rounds": 3})
        .with_noise(spec_of(open_source(Config.from_table(SMALL).shared)))
        .shared.noise_stddev
    )


def test_a_data_set_of_another_image_shape_trains_end_to_end(small_run):
    """Colour images of 32 x 32 pixels, given by a class outside the package."""
    for algorithm in ("gs-wgan", "fedavg-gan"):
        folder = small_run(
            f"{algorithm}-run", **TOY, algorithm=algorithm, rounds=2, samples_every=1
        )
        assert [line["received"] for line in read_rounds(folder)] == [3, 3]
        assert not list((folder / "clients").rglob("failures.log"))
        assert len(list((folder / "samples").glob("*.png"))) == 2
        assert summary_of(folder)["dataset"] == "colours"


# A run that stops, by Ctrl-C or SIGKILL, goes on to the very same weights.


def test_a_kill_in_the_middle_of_a_round_loses_nothing(tmp_path):
    """SIGKILL comes while a worker has answered and the server has not stepped.

    Checkpoints are three rounds apart, so rounds 4 and 5 are asked again, of other workers: what
    was released is repeated at no charge, and every critic goes on from where it was.
    """
    settings = {"critic": "tests.plug_ins:DeadlyCritic", "rounds": 7, "checkpoint_every": 3}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    two = ("--runtime", "in-process", "--workers", "2")
    (tmp_path / "armed").touch()
    done = subprocess.run(
        [sys.executable, "-m", "simulations.run", *words(killed, two, **settings)],
        env={**os.environ, KILL: str(tmp_path / "armed")}, check=False, timeout=300,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert Checkpoint(killed).progress().server_round == 3
    assert len(read_rounds(killed)) == DEADLY_ROUND - 1
    before = charges(killed)
    assert DEADLY_ROUND in {server_round for _, server_round in everybody(before)}

    assert main(resuming(killed)) == 0
    assert main(words(whole, **settings)) == 0

    assert same_weights(whole, killed)
    after, other = charges(killed), charges(whole)
    for shard, lines in before.items():
        assert after[shard][: len(lines)] == lines
    assert everybody(after) == everybody(other)
    assert [line["server_round"] for line in read_rounds(killed)] == list(range(1, 8))
    clients = [summary_of(folder)["bytes"]["by_client"] for folder in (killed, whole)]
    assert clients[0] == clients[1]


@pytest.mark.parametrize("looks", [2, 12, 19])
def test_an_interrupted_run_goes_on_to_the_same_weights(small_run, looks):
    """Before its first round, after some, and in the middle of one; on fewer shards or more."""
    whole = small_run("whole", rounds=4)
    count = iter(range(10**6))
    cut = small_run("cut", rounds=4, interrupted=lambda: next(count) >= looks)
    finished = len(read_rounds(cut))
    assert finished < 4
    assert not (cut / "summary.json").exists()
    small_run("cut", rounds=4, resume=True)
    assert same_weights(whole, cut)
    assert charges(whole) == charges(cut)


def started(folder, *runtime, **settings):
    """A run as the leader of its process group, after two rounds."""
    command = [sys.executable, "-m", "simulations.run", *words(folder, runtime, **settings)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (folder / "rounds.jsonl").exists() or len(read_rounds(folder)) < 2:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("way", ["ctrl-c", "workers", "ray"])
def test_an_interrupt_saves_and_says_how_to_resume(tmp_path, way):
    """Ctrl-C to the process, or SIGTERM to its whole group, workers and Ray included."""
    folder = tmp_path / "a run"
    runtime, workers = ("ray", "2") if way == "ray" else ("in-process", "1")
    workers = "2" if way == "workers" else workers
    process = started(folder, "--runtime", runtime, "--workers", workers, rounds=20000)
    if way == "ctrl-c":
        process.send_signal(signal.SIGINT)
    else:
        os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    finished = len(read_rounds(folder))
    assert Checkpoint(folder).progress().server_round == finished
    (line,) = (line for line in said.splitlines() if "go on with: " in line)
    # As a user pastes it into a shell; ended two rounds later, for the sake of time.
    shell = f"{line.partition('go on with: ')[2]} --set rounds={finished + 2}"
    if way != "ctrl-c":
        shell += " --runtime in-process --workers 1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_rounds(folder)) == finished + 2


# What is gone counts as exhausted; what was decided stays decided.


@pytest.mark.parametrize("left", ["folder", "nothing"])
def test_a_shard_whose_ledger_is_gone_is_exhausted(small_run, left):
    folder = small_run(rounds=2, cohort_size=4)
    gone = [f"client-{n:05d}" for n in range(4) if shard_of(f"client-{n:05d}", 2) == 0]
    shard = folder / "clients" / "shard-0000"
    (shard / LEDGER).unlink() if left == "folder" else shutil.rmtree(shard)
    small_run(rounds=3, cohort_size=4, resume=True)
    (*_, last) = read_rounds(folder)
    assert (last["received"], last["failed"]) == (4 - len(gone), len(gone))
    assert 0 < len(gone) < 4
    assert not (shard / LEDGER).exists(), "a ledger is created once"
    assert "BUDGET_EXHAUSTED" in (folder / "run.log").read_text()
    privacy = summary_of(folder)["privacy"]
    assert (privacy["epsilon_from"], privacy["participations_max"]) == ("the server's count", 3)


def test_a_run_that_its_budget_ends_early_says_so_in_its_notes(small_run):
    folder = small_run(rounds=3, cohort_size=4, max_participations=2)
    (note, *_) = summary_of(folder)["notes"]
    assert note.startswith("ended after 2 of 3 rounds: another release would take every user past")
    assert note in (folder / "run.log").read_text()


def test_a_run_whose_own_count_is_gone_fails_with_a_line(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(words(folder, rounds=1)) == 0
    (folder / "server-ledger" / LEDGER).unlink()
    capsys.readouterr()
    assert main(resuming(folder, "--set=rounds=2")) == 1
    assert "error: ledger" in capsys.readouterr().out
    assert len(read_rounds(folder)) == 1


def test_a_resumed_run_keeps_its_settings_and_may_be_longer(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(words(folder, rounds=2)) == 0
    before = everything_in(tmp_path)
    for wrong, said in [
        (resuming(folder, "--set=noise-stddev=50.0"), "noise-stddev=50.0 differs from the 2.14"),
        (resuming(folder, "--set=seed=1"), "seed=1 differs from the 0"),
        (resuming(folder, "--set=trust=\"central\""), "trust=central differs from the local"),
        (resuming(folder, "--output", "elsewhere"), "No such option '--output'"),
        (resuming(folder, "--config", "other.toml"), "unexpected extra argument (other.toml)"),
        (words(folder, rounds=1), "holds a run already"),
    ]:  # fmt: skip
        assert main(wrong) == 2
        assert said in "".join(capsys.readouterr())
    assert everything_in(tmp_path) == before
    assert main(resuming(folder, "--set=rounds=3")) == 0
    assert [line["server_round"] for line in read_rounds(folder)] == [1, 2, 3]
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(resuming(folder, "--set=rounds=4")) == 1
    assert "another process runs it" in capsys.readouterr().out


def test_a_run_of_version_1_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"config": {}, "experiment_id": "e"}))
    assert main(resuming(tmp_path)) == 2
    assert "run.json: a run of version 1, this program reads version 2" in capsys.readouterr().out


# What a user may mistype.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set=noise-stddev=-1.0"], "noise-stddev=-1.0 must"),
        (["--set=noise-stddev=nan"], "noise-stddev=nan must"),
        (["--set=rounds=1.5"], "rounds=1.5 must"),
        (["--set=nosuch=1"], "nosuch: no such setting"),
        (["--set=rounds"], "--set rounds: must be KEY=VALUE"),
        (["--set=epsilon=1.0"], "epsilon=1 and noise-stddev=2.14 cannot both"),
        (["--set=dct-frequencies=30"], "dct-frequencies=30 must be <= 28"),
        (["--set=critic=[/red] [bold]"], "critic='[/red] [bold]' must be one of"),
        (["--set=dataset=nowhere:Class"], "No module named 'nowhere'"),
        (["--workers", "-1"], "workers=-1 must be >= 0"),
        (["--config", "none.toml"], "none.toml"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys, options, said):
    assert main([*words(tmp_path / "run"), *options]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "run").exists()


ONE_LINE = [
    ("noise-stddev=nan", "noise-stddev=nan must"),
    ("clipping-bound=inf", "clipping-bound=inf must"),
    ("generator-learning-rate=nan", "generator-learning-rate=nan must"),
    ("generator-learning-rate=1e10", "generator-learning-rate=10000000000.0 must"),
    ("critic-learning-rate=1e30", "critic-learning-rate=1e+30 must"),
    ("delta=0", "delta=0 must"),
    ("delta=1", "delta=1 must"),
    ("delta=1e-400", "delta=0.0 must"),
    ("max-epsilon=nan", "max-epsilon=nan must"),
    ("rounds=0", "rounds=0 must"),
    ("rounds=1e3", "rounds=1000.0 must"),
    ("rounds=2.0", "rounds=2.0 must"),
    ("seed=-1", "seed=-1 must"),
    ("seed=99999999999999999999", "seed=99999999999999999999 must"),
    ("batch-size=0", "batch-size=0 must"),
    ("cohort-size=0", "cohort-size=0 must"),
    ("latent-dim=0", "latent-dim=0 must"),
    ("ema-halflife-steps=inf", "ema-halflife-steps=inf must"),
    ("sample-contrast=nan", "sample-contrast=nan must"),
    ("sample-contrast=-1", "sample-contrast=-1 must"),
    ("reply-timeout-seconds=inf", "reply-timeout-seconds=inf must"),
    ("reply-timeout-seconds=0", "reply-timeout-seconds=0 must"),
    ("checkpoint-every=0", "checkpoint-every=0 must"),
    ("generator-width=1", "generator-width=1 must"),
    ("noise-stdev=2", "noise-stdev: no such setting; did you mean noise-stddev?"),
    ("noise_stddev=2", "noise_stddev: no such setting; did you mean noise-stddev?"),
    ("dataset=Digits", "dataset='Digits' must be one of writers, digits,"),
    ("clipping", "--set clipping: must be KEY=VALUE"),
    ("=", "--set =: must be KEY=VALUE"),
    ("noise-stddev=", "noise-stddev='' must"),
    ("seed=0x10", None),  # TOML's sixteen
    ("seed=1_0", None),  # and ten
    ("seed=true", "seed=True must"),
    ("resume=yes", "resume='yes' must"),
    ('rounds="5"', "rounds='5' must"),
    ("classes=digit", "classes='digit' must be 'digits', 'letters', 'all' or 'merged'"),
    ("generator-width=100000", "generator-width=100000 must"),
    ("critic-width=3", None),
    ("generator=resnet generator-width=1", "generator-width=1 must"),
    ("adam-beta1=1", "adam-beta1=1 must"),
    ("swapped-share=2", "swapped-share=2 must"),
    ("gradient-penalty=-1", "gradient-penalty=-1 must"),
    ("noise-stddev=1e-320", "noise-stddev=9.99989e-321 must"),
]


@pytest.mark.parametrize(("line", "said"), ONE_LINE, ids=[line for line, _ in ONE_LINE])
def test_a_setting_that_is_none_is_refused_in_one_line(tmp_path, line, said):
    def read():
        return Simulation.prepared({}, line.split(), str(tmp_path / "run"), runtime="in-process")

    if said is None:
        assert read().config.shared.dataset == "digits"
        return
    with pytest.raises(ValueError, match="^" + re.escape(said)) as refused:
        read()
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_toml_is_named_and_a_byte_order_mark_is_read(tmp_path, capsys):
    wrong, marked = tmp_path / "wrong.toml", tmp_path / "marked.toml"
    wrong.write_text("rounds = 1\nseed =\n")
    assert cli(["run", str(wrong)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"error: {wrong} is not TOML: ")
    marked.write_bytes("\ufeffrounds = 7\n".encode())
    assert read_toml(marked) == {"rounds": 7}


def test_an_interrupt_while_a_run_is_prepared_shows_no_traceback(monkeypatch, capsys):
    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "open_source", interrupted)
    assert cli(["run", "--set", "rounds=1"]) == 130
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_an_interrupt_while_the_command_loads_ends_it_without_a_traceback():
    """An import hook sends it to the process itself, in the middle of loading the commands."""
    hook = """
import os, signal, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "fed_gswgan.commands.device":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Hook())
from fed_gswgan.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", hook], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_disk_that_fills_up_names_the_path_and_how_to_resume(tmp_path, monkeypatch, capsys):
    folder, third = tmp_path / "a run", "round-000003.safetensors"
    fsync, full = os.fsync, []

    def filling(descriptor):
        if third in os.readlink(f"/proc/self/fd/{descriptor}"):
            full.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", filling)
    assert main(words(folder, rounds=4)) == 1
    assert full
    *_, error, hint = capsys.readouterr().out.splitlines()
    path = folder / "checkpoint" / third
    assert error == f"error: {path}: no space left on the disk; make room there"
    assert Checkpoint(folder).progress().server_round == 2
    assert not list(folder.rglob("*.new"))
    monkeypatch.undo()
    command = shlex.split(hint.partition("go on with: ")[2])
    assert command[:4] == [sys.executable, "-m", "fed_gswgan", "resume"]
    assert cli(command[3:]) == 0
    assert len(read_rounds(folder)) == 4


def test_resuming_what_is_no_run_and_an_unknown_option_say_so(tmp_path, capsys):
    assert main(resuming(tmp_path)) == 2
    assert "run.json: not there" in capsys.readouterr().out
    assert main(["--nosuch"]) == 2
    assert "No such option '--nosuch'" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    import tomllib

    config = Config.from_table(tomllib.loads(path.read_text()))
    assert config.shared.rounds >= 1


def test_a_run_ends_with_a_table_a_picture_and_plain_words(tmp_path, few_steps, capsys):
    folder = tmp_path / "run"
    assert main(words(folder, rounds=20, evaluation_samples=40)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "protects nobody" in said
    assert "downstream accuracy" in said
    assert list((folder / "samples").glob("*.png"))
    metrics = summary_of(folder)["metrics"]
    names = {"inception_score", "frechet_distance", "label_agreement", "downstream_accuracy"}
    assert all(math.isfinite(metrics[name]) for name in names)

"""The command ``fed-gswgan``: runs, their samples and metrics, privacy, ledgers and devices."""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console

from fed_gswgan.baselines.registry import SEEDS, methods_for
from fed_gswgan.commands.data import data
from fed_gswgan.commands.device import device, ledger
from fed_gswgan.commands.output import Json, show
from fed_gswgan.commands.prior import prior
from fed_gswgan.commands.privacy import privacy
from fed_gswgan.privacy.refusals import Refusal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables
    help=__doc__,
)
compare = typer.Typer(no_args_is_help=True, help="the paper's tables")
app.add_typer(privacy, name="privacy")
app.add_typer(prior, name="prior")
app.add_typer(data, name="data")
app.add_typer(device, name="device")
app.add_typer(ledger, name="ledger")
app.add_typer(compare, name="compare")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one setting")
]
Runtime = Annotated[str, typer.Option(help="ray or in-process")]
Workers = Annotated[int, typer.Option(help="processes that serve clients; 0: one a core")]
Preset = Annotated[str, typer.Option(help="small or full")]
CellWorkers = Annotated[int, typer.Option(help="cells at a time, a process each")]
Output = Annotated[Path | None, typer.Option(help="folder to write to, and to go on in")]
RayAddress = Annotated[str, typer.Option(help="of a running Ray cluster", envvar="RAY_ADDRESS")]
CORES = os.cpu_count() or 1
SLACK_SECONDS = 60.0  # beyond the time-out, for a round's other work
REPLIES = ("asked", "received", "failed", "malformed", "missing")
DRAWN = 4000  # samples for metrics, of each of two draws
WHOLE = ("mnist", "fashion-mnist")  # data sets with a test set of their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    It is 0, 1 for a verdict against or a failure, 2 for bad input, 130 for an interrupt.
    """
    try:
        return int(app(args=arguments, standalone_mode=False) or 0)
    except (click.Abort, KeyboardInterrupt):  # of an older typer, which has no status for it
        print("fed-gswgan: interrupted", file=sys.stderr)
        return 130
    except click.ClickException as error:
        print(f"fed-gswgan: {' '.join(error.format_message().split())}", file=sys.stderr)
        return 2
    except Refusal as refusal:
        print(f"fed-gswgan: {refusal.name}: {refusal}", file=sys.stderr)
        return 1
    except (ValueError, OverflowError, OSError, ModuleNotFoundError) as error:
        print(f"fed-gswgan: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"fed-gswgan: {error}", file=sys.stderr)
        return 1


def _show_version(asked: bool) -> None:
    if asked:
        print(f"fed-gswgan {importlib.metadata.version('fed-gswgan')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="print it and exit"),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.toml]",
            help="settings; without it and without --set: simulations/configs/writers.toml",
        ),
    ] = None,
    output: Annotated[str, typer.Option(help="folder of the run; default runs/<name>")] = "",
    set_: Set = None,
    runtime: Runtime = "ray",
    workers: Workers = 0,
    ray_address: RayAddress = "",
) -> None:
    """Run a simulation of many clients."""
    module = simulations("run")
    files = [config] if config else [] if set_ else [module.WRITERS]
    status = module.simulate(files, set_ or [], output, "", runtime, workers, ray_address)
    raise typer.Exit(status)


@app.command()
def resume(
    run: Run,
    set_: Set = None,
    runtime: Runtime = "ray",
    workers: Workers = 0,
    ray_address: RayAddress = "",
) -> None:
    """Go on with a run that was stopped."""
    status = simulations("run").simulate(
        [], set_ or [], "", str(run), runtime, workers, ray_address
    )
    raise typer.Exit(status)


@app.command()
def status(
    run: Run,
    max_age: Annotated[
        float | None, typer.Option(help="seconds since a healthy run's last round")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how far a run is; exit status 1 if it stands still: a health check."""
    from fed_gswgan.reporting.round_log import ROUNDS, read_rounds
    from fed_gswgan.reporting.run_folder import RUN, SUMMARY, WIRE_BYTES, config_of_run, is_running

    config, rounds = config_of_run(run), read_rounds(run)
    finished = (run / SUMMARY).exists()
    age = time.time() - max((run / n).stat().st_mtime for n in (RUN, ROUNDS) if (run / n).exists())
    oldest = float(config["reply-timeout-seconds"]) + SLACK_SECONDS if max_age is None else max_age
    state = "finished" if finished else "running" if is_running(run) else "stopped"
    wire = run / WIRE_BYTES
    found = {
        "run": str(run),
        "state": state,
        "healthy": finished or (state == "running" and age <= oldest),
        "round": rounds[-1]["server_round"] if rounds else 0,
        "rounds": config["rounds"],
        "seconds_since_last_round": round(age, 1),
        "replies": {kind: sum(line[kind] for line in rounds) for kind in REPLIES},
        "epsilon_server_bound": rounds[-1]["epsilon_server_bound"] if rounds else 0.0,
        "delta": config["delta"],
        "payload_bytes": {
            way: sum(line[f"{way}_bytes"] for line in rounds) for way in ("uplink", "downlink")
        },
        "wire_bytes": json.loads(wire.read_text()) if wire.exists() else None,
    }
    show(found, as_json, _status_lines, good=bool(found["healthy"]))


@app.command()
def sample(
    run: Run,
    labels: Annotated[str, typer.Option(help="classes, 0,1,... or names; default: all")] = "",
    count: Annotated[int, typer.Option(min=1, help="of each class")] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    output: Annotated[
        Path,
        typer.Option(help="FILE.npz: samples (bytes, ink 255) and labels; FILE.png: a picture"),
    ] = Path("samples.npz"),
    as_json: Json = False,
) -> None:
    """Draw samples from a run's generator."""
    if output.suffix not in (".npz", ".png"):
        raise ValueError(f"output={output} must end in .npz or .png")
    import torch

    from fed_gswgan.evaluation.samplers import draw_samples, write_samples
    from fed_gswgan.reporting.progress_bar import bars_on
    from fed_gswgan.reporting.trained_generator import load_generator

    trained = load_generator(run)
    names = trained.spec.class_names
    classes = _classes(labels, trained.spec.num_classes, names)
    labels_B = torch.tensor(classes).repeat_interleave(count)
    with bars_on(Console(stderr=True)):
        samples = draw_samples(trained.sampler, labels_B, "command", seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".npz":
        write_samples(output, samples, labels_B, names)
    else:
        from torchvision.utils import make_grid

        from fed_gswgan.reporting.pictures import save_grid

        shown = 1 - samples if samples.shape[1] == 1 else samples
        drawn = make_grid(shown, nrow=count, pad_value=1.0)
        save_grid(drawn, output, [names[label] for label in classes] if names else [])
    found = {
        "output": str(output),
        "samples": len(samples),
        "labels": classes,
        "classes": [names[label] for label in classes] if names else None,
        "round": trained.server_round,
        "seed": seed,
    }
    show(found, as_json)


@app.command()
def evaluate(
    subject: Annotated[Path, typer.Argument(metavar="RUN|FILE.npz")],
    samples: Annotated[
        int | None, typer.Option(min=2, help="drawn; default 4000, of a file at most all")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the metrics, not of the run")] = 0,
    dataset: Annotated[str, typer.Option(help="of a file; a run knows its own")] = "",
    data_dir: Annotated[str, typer.Option(help="of a file; default: FED_GSWGAN_DATA")] = "",
    classes: Annotated[str, typer.Option(help="of a file; default all")] = "",
    min_images_per_writer: Annotated[int, typer.Option(help="of a file; default 1")] = 0,
    preset: Annotated[str, typer.Option(help="small or full, for mnist and fashion-mnist")] = "",
    as_json: Json = False,
) -> None:
    """Measure a run's generator, or samples in a file, on held-out images."""
    from fed_gswgan.data.registry import DataSettings
    from fed_gswgan.evaluation.samplers import pool_sampler, read_samples

    if subject.is_dir():
        from fed_gswgan.reporting.trained_generator import load_generator

        _refuse("a run knows its own", dataset=dataset, data_dir=data_dir, classes=classes)
        _refuse("a run knows its own", min_images_per_writer=min_images_per_writer)
        _refuse(f"of {' and '.join(WHOLE)} alone", preset=preset)
        trained = load_generator(subject)
        found = _on_held_out(trained.sampler, trained.config.shared, samples or DRAWN, seed)
        _show_metrics(found, as_json)
        return
    if not dataset:
        raise ValueError("dataset must be given for samples in a file")
    held = read_samples(subject)
    counted = {"samples_in_file": len(held.labels_N)}
    if dataset in WHOLE:
        _refuse(f"the preset decides for {dataset}", samples=samples)
        _refuse(f"not of {dataset}", classes=classes, min_images_per_writer=min_images_per_writer)
        with _evaluating(subject):
            found = _on_test_set(pool_sampler(*held), dataset, data_dir, preset or "small", seed)
        _show_metrics(found | counted, as_json)
        return
    if samples and samples > len(held.labels_N):
        raise ValueError(f"samples={samples} must be <= {len(held.labels_N)}, those in {subject}")
    _refuse(f"of {' and '.join(WHOLE)} alone", preset=preset)
    given: dict[str, Any] = {"dataset": dataset, "data-dir": data_dir, "classes": classes or "all"}
    given["min-images-per-writer"] = min_images_per_writer or 1
    count = samples or min(DRAWN, len(held.labels_N))
    config = DataSettings.from_table(given)
    with _evaluating(subject):
        found = _on_held_out(pool_sampler(*held), config, count, seed, held)
    _show_metrics(found | counted, as_json)


@contextmanager
def _evaluating(file: Path) -> Iterator[None]:
    """Name the file in whatever is refused."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"evaluating {file}: {error}") from error


@compare.command()
def table1(
    dataset: Annotated[str, typer.Option(help="mnist or fashion-mnist")],
    preset: Preset = "small",
    methods: Annotated[
        str, typer.Option(help="with commas between; all; empty: real images alone")
    ] = "all",
    epsilon: Annotated[str, typer.Option(help="of a record; several make curves")] = "10",
    delta: float = 1e-5,
    seeds: Annotated[int, typer.Option(help="runs of each method")] = SEEDS,
    data_dir: Annotated[Path | None, typer.Option(help="default: FED_GSWGAN_DATA")] = None,
    output: Output = None,
    workers: CellWorkers = CORES,
    as_json: Json = False,
) -> None:
    """Compare centralised methods at a true epsilon (the paper's first table)."""
    folder = output or Path("results") / f"table1-{dataset}-{preset}"
    table = simulations("tables.table1").Table1(
        dataset=dataset,
        data_dir=data_dir,
        preset=preset,
        methods=methods_for(dataset) if methods == "all" else _names(methods),
        epsilons=tuple(float(number) for number in epsilon.split(",")),
        delta=delta,
        seeds=seeds,
        folder=folder,
        workers=workers,
    )
    _show_table(table.run(Console(file=sys.stderr)), folder, as_json)


@compare.command()
def table4(
    classes: Annotated[str, typer.Option(help="digits or all")] = "digits",
    methods: Annotated[str, typer.Option(help="with commas between; all")] = "all",
    seeds: Annotated[int, typer.Option(help="runs of each method that does not run once")] = SEEDS,
    data_dir: Annotated[str, typer.Option(help="default: FED_GSWGAN_DATA")] = "",
    output: Output = None,
    workers: CellWorkers = CORES,
    as_json: Json = False,
) -> None:
    """Compare federated methods on the writers of Fed-EMNIST (the paper's fourth table)."""
    folder = output or Path("results") / f"table4-fed-emnist-{classes}"
    rows = simulations("tables.table4_rows").rows_of(classes)
    table = simulations("tables.table4").Table4(
        classes=classes,
        methods=tuple(rows) if methods == "all" else _names(methods),
        seeds=seeds,
        workers=workers,
        folder=folder,
        data_dir=data_dir,
    )
    _show_table(table.run(Console(file=sys.stderr)), folder, as_json)


@compare.command()
def ablation(
    rows: Annotated[str, typer.Option(help="with commas between; all")] = "all",
    epsilon: Annotated[str, typer.Option(help="of every row")] = "1,10",
    axis: Annotated[bool, typer.Option(help="further epsilons for the curves")] = True,
    seeds: Annotated[int, typer.Option(help="runs of each row")] = 1,
    dataset: Annotated[str, typer.Option(help="fed-emnist or drawn")] = "fed-emnist",
    data_dir: Annotated[str, typer.Option(help="default: FED_GSWGAN_DATA")] = "",
    output: Output = None,
    workers: CellWorkers = CORES,
    as_json: Json = False,
) -> None:
    """Change one part of the method at a time (docs/method.md)."""
    folder = output or Path("results") / f"ablation-{dataset}"
    module = simulations("tables.ablation")
    table = module.Ablation(
        rows=tuple(module.ROWS) if rows == "all" else tuple(n.strip() for n in _names(rows)),
        epsilons=tuple(float(number) for number in epsilon.split(",")),
        axis=axis,
        seeds=seeds,
        dataset=dataset,
        workers=workers,
        folder=folder,
        data_dir=data_dir,
    )
    _show_table(table.run(Console(file=sys.stderr)), folder, as_json)


def _names(methods: str) -> tuple[str, ...]:
    return tuple(name for name in methods.split(",") if name)


def _show_table(found: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Print a comparison's table, as Markdown or JSON."""
    text = (folder / "table.md").read_text() + f"written to {folder}"
    show({"folder": str(folder), **found}, as_json, lambda _: text)


def simulations(name: str) -> Any:
    """Import a module of the checkout, which the installed package does not have."""
    try:
        return importlib.import_module(f"simulations.{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("simulations", f"simulations.{name}"):
            raise
        raise ValueError(
            "simulations run in a checkout of the project: call this from its folder"
        ) from error


def _refuse(why: str, **given: Any) -> None:
    """Refuse options that would change nothing."""
    for name, value in given.items():
        if value:
            raise ValueError(f"{name.replace('_', '-')}={value}: {why}; leave it out")


def _classes(text: str, num_classes: int, names: tuple[str, ...]) -> list[int]:
    """Return the labels that are named; a word that is a class's name is that class."""
    classes = []
    for word in (word.strip() for word in text.split(",") if word.strip()):
        if word in names:
            classes.append(names.index(word))
        elif word.isdecimal() and int(word) < num_classes:
            classes.append(int(word))
        else:
            known = f" or one of {', '.join(names)}" if names else ""
            raise ValueError(f"labels={word!r} must be in 0 .. {num_classes - 1}{known}")
    return classes or list(range(num_classes))


def _on_held_out(
    sampler: Any, settings: Any, samples: int, seed: int, held: Any = None
) -> dict[str, Any]:
    """Measure on held-out images; of samples in a file, on those of their classes."""
    from fed_gswgan.data.registry import open_source
    from fed_gswgan.evaluation.report import held_out_judge, require_ink_on_paper
    from fed_gswgan.reporting.progress_bar import bars_on

    source = open_source(settings)
    classes = None
    if held is not None:
        require_ink_on_paper(held.samples_NCHW, source.held_out().images)
        classes = set(held.labels_N.tolist())
    with bars_on(Console(stderr=True)):
        return held_out_judge(source, seed).report(sampler, samples, classes).to_dict()


def _show_metrics(found: dict[str, Any], as_json: bool) -> None:
    """Print metrics, with None and a note for each that is no number; warnings as errors."""
    from fed_gswgan.evaluation.report import metric_notes
    from fed_gswgan.reporting.run_folder import finite_json

    plain, undefined = finite_json(found)
    for note in [*metric_notes(plain), *undefined]:
        print(f"fed-gswgan: warning: {note}", file=sys.stderr)
    show(plain | ({"notes": undefined} if undefined else {}), as_json)


def _on_test_set(
    sampler: Any, dataset: str, data_dir: str, preset: str, seed: int
) -> dict[str, Any]:
    import torch

    from fed_gswgan.data.whole_dataset import open_whole_dataset
    from fed_gswgan.evaluation.distances import metric_size
    from fed_gswgan.evaluation.table import real_scores, table_metrics

    def quiet(line: str) -> None:
        """Keep silent about progress."""

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    whole = open_whole_dataset(dataset, Path(data_dir) if data_dir else None).to(device)
    size = metric_size(preset, device)
    real = real_scores(whole, size, seed, quiet)
    return table_metrics(sampler, whole, size, seed, real, quiet).to_dict()


def _status_lines(found: dict[str, Any]) -> str:
    replies, payload, wire = found["replies"], found["payload_bytes"], found["wire_bytes"]
    lines = [
        f"{found['run']}: {found['state']}, {'healthy' if found['healthy'] else 'NOT healthy'}",
        f"round {found['round']} of {found['rounds']}, {found['seconds_since_last_round']:g} s ago",
        "replies: " + ", ".join(f"{count} {kind}" for kind, count in replies.items()),
        f"epsilon of the user asked most: at most {found['epsilon_server_bound']:.6g} at delta "
        f"{found['delta']:g}, by the server's count",
        f"payload: {payload['uplink'] / 1e6:.3f} MB up, {payload['downlink'] / 1e6:.3f} MB down",
    ]
    if wire is not None:
        lines.append(
            f"on the wire: {wire['uplink'] / 1e6:.3f} MB up, {wire['downlink'] / 1e6:.3f} MB down, "
            "the bundle, polling, TLS and all"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

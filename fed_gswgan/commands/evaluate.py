"""``fed-gswgan evaluate``: the metrics of a run's generator, or of samples in a file."""

import argparse
from pathlib import Path
from typing import Any

from fed_gswgan.config import CLASS_SETS, DATASETS, DataConfig

WHOLE = ("mnist", "fashion-mnist")  # with a test set of their own
SAMPLES = 4000
PRESET = "small"
OF_PEOPLE = ("data_dir", "classes", "min_images_per_writer")  # of a federation's data


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("evaluate", help="measure a run, or samples in a file")
    parser.add_argument("subject", type=Path, metavar="RUN|FILE.npz")
    parser.add_argument("--samples", type=int, help=f"drawn; default {SAMPLES}")
    parser.add_argument("--seed", type=int, default=0, help="of the metrics, not of the run")
    file = parser.add_argument_group("of a file, which does not say what it was trained on")
    file.add_argument("--dataset", choices=(*DATASETS, *WHOLE))
    file.add_argument("--data-dir", help="default: FED_GSWGAN_DATA")
    file.add_argument("--classes", choices=CLASS_SETS, help="default all")
    file.add_argument("--min-images-per-writer", type=int, help="default 1")
    file.add_argument(
        "--preset", choices=("small", "full"),
        help=f"sizes of the paper's metrics, for mnist and fashion-mnist; default {PRESET}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=evaluate)


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics: on held-out images of a federation, or on the test set of a whole."""
    from fed_gswgan.evaluation.samplers import pool_sampler, read_samples

    if options.subject.is_dir():
        from fed_gswgan.reporting.trained_generator import load_generator

        _refuse(options, "a run knows its own", "dataset", *OF_PEOPLE)
        _refuse(options, f"of {' and '.join(WHOLE)} alone", "preset")
        trained = load_generator(options.subject)
        return _on_held_out(options, trained.sampler, trained.config.data)
    if options.dataset is None:
        raise ValueError("dataset must be given for samples in a file")
    sampler = pool_sampler(*read_samples(options.subject))
    if options.dataset in WHOLE:
        _refuse(options, f"the preset decides for {options.dataset}", "samples")
        _refuse(options, f"not of {options.dataset}", "classes", "min_images_per_writer")
        return _on_test_set(options, sampler)
    _refuse(options, f"of {' and '.join(WHOLE)} alone", "preset")
    given = {name: getattr(options, name) for name in OF_PEOPLE if _given(options, name)}
    return _on_held_out(options, sampler, DataConfig(dataset=options.dataset, **given))


def _given(options: argparse.Namespace, name: str) -> bool:
    return getattr(options, name) is not None


def _refuse(options: argparse.Namespace, why: str, *names: str) -> None:
    """Refuse options that would change nothing."""
    for name in names:
        if _given(options, name):
            key, value = name.replace("_", "-"), getattr(options, name)
            raise ValueError(f"{key}={value}: {why}; leave it out")


def _on_held_out(options: argparse.Namespace, sampler: Any, config: DataConfig) -> dict[str, Any]:
    from fed_gswgan.data.registry import open_source
    from fed_gswgan.evaluation.report import evaluate_on_held_out

    samples = SAMPLES if options.samples is None else options.samples
    return evaluate_on_held_out(sampler, open_source(config), samples, options.seed).to_dict()


def _on_test_set(options: argparse.Namespace, sampler: Any) -> dict[str, Any]:
    import torch

    from fed_gswgan.data.whole_dataset import open_whole_dataset
    from fed_gswgan.evaluation.distances import metric_size
    from fed_gswgan.evaluation.table import real_scores, table_metrics

    data_dir = Path(options.data_dir) if options.data_dir else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = open_whole_dataset(options.dataset, data_dir).to(device)
    size = metric_size(options.preset or PRESET, device)
    real = real_scores(data, size, options.seed, _nothing)
    return table_metrics(sampler, data, size, options.seed, real, _nothing).to_dict()


def _nothing(line: str) -> None:
    """Keep silent about progress."""

"""``fed-gswgan sample RUN``: draw samples of the classes asked for from a run's generator."""

import argparse
from pathlib import Path
from typing import Any

from fed_gswgan.validation import at_least


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("sample", help="draw samples from a run's generator")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--labels", help="classes, 0,1,... with commas between; default all")
    parser.add_argument("--count", type=int, default=100, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output", type=Path, default=Path("samples.npz"),
        help="FILE.npz: samples (bytes, ink 255) and labels; FILE.png: a picture, a row a class",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=sample)


def sample(options: argparse.Namespace) -> dict[str, Any]:
    """Write the samples, and return what they are."""
    if options.output.suffix not in (".npz", ".png"):
        raise ValueError(f"output={options.output} must end in .npz or .png")
    at_least(1, count=options.count)
    at_least(0, seed=options.seed)

    import torch

    from fed_gswgan.evaluation.samplers import draw_samples, write_samples
    from fed_gswgan.reporting.trained_generator import load_generator

    trained = load_generator(options.run)
    classes = _classes(options.labels, trained.num_classes)
    labels = torch.tensor(classes).repeat_interleave(options.count)
    samples = draw_samples(trained.sampler, labels, "command", options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if options.output.suffix == ".npz":
        write_samples(options.output, samples, labels)
    else:
        from torchvision.utils import save_image

        save_image(1 - samples, options.output, nrow=options.count, pad_value=1.0)
    return {
        "output": str(options.output),
        "samples": len(samples),
        "labels": classes,
        "round": trained.server_round,
        "seed": options.seed,
    }


def _classes(text: str | None, num_classes: int) -> list[int]:
    if text is None:
        return list(range(num_classes))
    try:
        classes = [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"labels={text} must be whole numbers with commas between") from None
    for label in classes:
        if not 0 <= label < num_classes:
            raise ValueError(f"labels={label} must lie in 0 .. {num_classes - 1}")
    return classes

"""``fed-gswgan prior``: make a public prior, and look at one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from fed_gswgan.commands.output import Json, progress_bar, show

if TYPE_CHECKING:
    from torch import Tensor

prior = typer.Typer(no_args_is_help=True, help="public images that a run starts from")

TRAINED_ON, MOST_A_CLASS = 60_000, 4000  # drawings
SAMPLES_A_CLASS = 1000  # in a file
Steps = Annotated[int, typer.Option(min=10)]
Classes = Annotated[
    Literal["digits", "letters", "all", "merged"], typer.Option(help="of drawn characters")
]


@prior.command()
def train(
    output: Annotated[Path, typer.Option(help="folder to write")],
    classes: Classes = "digits",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="DIR/WRITER/CLASS/*.png, public; else drawn")
    ] = None,
    generator_steps: Steps = 8000,
    critic_steps: Steps = 2000,
    feature_steps: Annotated[int, typer.Option(min=0, help="0: no features of its own")] = 0,
    feature_width: Annotated[int, typer.Option(min=1)] = 32,
    components: Annotated[int, typer.Option(min=1)] = 192,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train generator, critic and features on public images, for ``prior=folder:PATH``."""
    if output.exists():
        raise ValueError(f"output={output} exists; name a new folder")
    import torch

    from fed_gswgan.algorithms.fedavg_gan import Settings
    from fed_gswgan.data.characters import emnist_class_set
    from fed_gswgan.models.registry import CriticNetworkSettings
    from fed_gswgan.priors import training
    from fed_gswgan.priors.prior import STROKES, pool_images, write_prior
    from fed_gswgan.seeding import SeedStream

    if images is None:
        names = emnist_class_set(classes).names
        pool = _drawn(names, seed)
    else:
        names, pool = _pool_of(images)
    seeds = SeedStream(seed)
    kept = seeds.generator("kept").permutation(pool.shape[1])[: pool_images(len(names))]
    shown, pool = pool[:, kept], pool.to(device)
    # The networks that both algorithms have unless a run says otherwise.
    settings = Settings()
    with progress_bar("generator") as done:
        generator = training.train_generator(pool, settings, generator_steps, seeds, done)
    with progress_bar("critic") as done:
        critic = training.train_prior_critic(
            pool, generator, settings, settings, critic_steps, seeds, done
        )
    features = None
    if feature_steps:
        with progress_bar("features") as done:
            network = training.train_feature_network(
                pool, feature_width, feature_steps, seeds, done
            )
        features = training.components_of(network, pool, components)
    table = settings.to_table()
    weights_of = {
        "generator": ("generator", "generator-width", "latent-dim", "latent-kind"),
        "critic": tuple(CriticNetworkSettings.keys()),
    }
    about = {
        "source": STROKES if images is None else "images",
        "class-names": names,
        "seed": seed,
        **{part: {key: table[key] for key in keys} for part, keys in weights_of.items()},
        "steps": {"generator": generator_steps, "critic": critic_steps, "features": feature_steps},
        "trained-on": device,
        "torch": torch.__version__.split("+")[0],
    }
    networks = {"generator": generator, "critic": critic}
    write_prior(output, about, networks, features, None if images is None else shown)
    show({"output": str(output), "prior": f"folder:{output}", **about}, as_json)


@prior.command()
def judge(
    output: Annotated[Path, typer.Option(help="folder to write")],
    steps: Steps = 1500,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train the second judge, which only metrics use, on drawings of all classes."""
    if output.exists():
        raise ValueError(f"output={output} exists; name a new folder")
    from fed_gswgan.data.characters import CHARACTERS
    from fed_gswgan.priors.prior import STROKES, write_judge
    from fed_gswgan.priors.training import train_judge
    from fed_gswgan.seeding import SeedStream

    pool = _drawn(CHARACTERS, seed).to(device)
    with progress_bar("judge") as done:
        trained = train_judge(pool, steps, SeedStream(seed), done)
    about = {
        "source": STROKES,
        "class-names": CHARACTERS,
        "seed": seed,
        "steps": steps,
        "trained-on": device,
    }
    write_judge(output, about, trained)
    show({"output": str(output), **about}, as_json)


@prior.command(name="show")
def show_(
    output: Annotated[Path, typer.Option(help="FILE.png, or FILE.npz: samples for evaluate")],
    name: Annotated[
        str, typer.Argument(metavar="PRIOR", help="strokes or folder:PATH")
    ] = "strokes",
    classes: Classes = "digits",
    seed: Annotated[int, typer.Option(min=0, help="of the samples")] = 0,
    as_json: Json = False,
) -> None:
    """Draw a sheet: of each class twelve images of the pool, and twelve of the generator.

    Or write a thousand samples of each class, for ``fed-gswgan evaluate``.
    """
    if output.suffix not in (".png", ".npz"):
        raise ValueError(f"output={output} must end in .png or .npz")
    import json

    import torch
    from torchvision.utils import make_grid

    from fed_gswgan.data.characters import IMAGE_SHAPE, emnist_class_set
    from fed_gswgan.data.client_dataset import DataSpec
    from fed_gswgan.evaluation.samplers import draw_samples, write_samples
    from fed_gswgan.models.registry import GeneratorSettings, build_generator
    from fed_gswgan.models.trainer import sampler_of
    from fed_gswgan.priors.prior import ABOUT, PriorSettings, open_prior
    from fed_gswgan.reporting.pictures import COLUMNS, save_grid

    names = emnist_class_set(classes).names
    kind, _, path = name.partition(":")
    if kind == "folder":
        names = tuple(json.loads((Path(path) / ABOUT).read_text())["class-names"])
    spec = DataSpec(IMAGE_SHAPE, len(names), names)
    found = open_prior(PriorSettings(prior=name), spec)
    if found is None:
        raise ValueError(f"prior={name} has nothing to show")
    settings = GeneratorSettings.from_table(dict(found.about["generator"]))
    generator = build_generator(settings, spec, 0)
    found.start(generator, "generator", settings)
    sheet = output.suffix == ".png"
    labels = torch.arange(len(names)).repeat_interleave(COLUMNS if sheet else SAMPLES_A_CLASS)
    samples = draw_samples(sampler_of(generator, settings), labels, "prior", seed)
    if not sheet:
        write_samples(output, samples, labels)
        show({"output": str(output), "prior": name, "samples": len(labels)}, as_json)
        return
    drawn = found.pool()[:, :COLUMNS, None]
    rows = torch.cat([drawn, samples.view(len(names), COLUMNS, *IMAGE_SHAPE)], 1).flatten(0, 1)
    save_grid(make_grid(1 - rows, nrow=2 * COLUMNS, padding=2, pad_value=1.0), output)
    show({"output": str(output), "prior": name, "classes": len(names)}, as_json)


def _drawn(names: Sequence[str], seed: int) -> "Tensor":
    """Return the drawings that networks are trained on."""
    from fed_gswgan.priors.strokes import draw_pool
    from fed_gswgan.reporting.progress_bar import bars_on
    from fed_gswgan.seeding import SeedStream

    with bars_on(Console(stderr=True)):
        return draw_pool(names, min(TRAINED_ON // len(names), MOST_A_CLASS), SeedStream(seed))


def _pool_of(folder: Path) -> tuple[tuple[str, ...], "Tensor"]:
    """Return class names and as many images of each class, those of small classes repeated."""
    import torch

    from fed_gswgan.data.image_folder import open_image_folder

    source = open_image_folder(str(folder), "all", 1)
    parts = [source.shard(writer) for writer in source.writer_ids] + [source.held_out()]
    by_class = [
        torch.cat([torch.from_numpy(p.images[p.labels == label, 0]) for p in parts])
        for label in range(len(source.class_names))
    ]
    most = max(len(images) for images in by_class)
    pool = [images[torch.arange(most) % len(images)] for images in by_class]
    return source.class_names, torch.stack(pool)

"""Public priors by name: a pool of images, a generator and critic trained on it, and features.

A prior is a folder that ``fed-gswgan prior train`` wrote; two of drawn characters ship with the
library. Nothing in it depends on a client's data, so that it costs no privacy.

Shapes: L classes, M images of a class, H and W image.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fed_gswgan.data.characters import CHARACTERS, DIGITS, IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.features import Features, HiddenLayers, NetworkComponents
from fed_gswgan.models.judge import StrokeJudge
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.priors.strokes import draw_pool
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Settings, Whole

ABOUT, WEIGHTS = "prior.json", "prior.safetensors"
POOL, FEATURES = "pool.safetensors", "features.safetensors"
JUDGE = "judge.safetensors"
STROKES = "strokes"
NONE = "none"
LARGEST_POOL = 30_000  # drawings of all classes together
MOST_IMAGES = 1000  # of a class
FREQUENCIES, COMPONENTS = 7, 64
RANDOM_NETWORK = 32, 64  # width, components


SHIPPED = Path(str(files("fed_gswgan_data")))


class PriorSettings(Settings):
    """What is public before a run begins."""

    prior: str = NONE
    """public images and a generator to start from: strokes, folder:PATH, or none"""
    features: str = STROKES
    """in which images are compared: strokes, dct, random, or file:PATH (of prior train)"""
    feature_frequencies: Whole = 0
    """F: the lowest F x F frequencies of an image; 0: follows from the noise"""
    feature_components: Whole = 0
    """of the features' network, dct has none; 0: follows from the noise"""


@dataclass(frozen=True)
class Prior:
    """A public prior for the classes of a run.

    Attributes:
        about: what ``prior train`` noted: source, classes, settings, seed, checksums.
        class_names: of the run.
        weights: of generator and critic, ``generator/...`` and ``critic/...``, float32.
        drawn: whether the pool is drawn anew; else it lies in ``folder``.
        folder: of the prior.
    """

    about: Mapping[str, Any]
    class_names: tuple[str, ...]
    weights: Mapping[str, Tensor]
    drawn: bool
    folder: Path

    def pool(self) -> Tensor:
        """Return the public images, float32 (L, M, H, W) in [0, 1]."""
        if self.drawn:
            return drawn_pool(self.class_names, int(self.about["seed"]))
        pool_LMHW = _opened(self.folder, POOL, self.about)["pool"]
        return pool_LMHW.float() / 255

    def start(self, network: nn.Module, part: str, settings: Settings) -> None:
        """Load the prior's ``generator`` or ``critic`` into a network of its settings.

        Raises:
            ValueError: the run's network is another; names the key and both values.
        """
        table = settings.to_table()
        for key, value in self.about[part].items():
            if table[key] != value:
                raise ValueError(
                    f"{key}={table[key]!r} must be {value!r}, as of the {part} of the prior; set "
                    f"it, or prior={NONE}"
                )
        start = f"{part}/"
        network.load_state_dict(
            {n.removeprefix(start): t for n, t in self.weights.items() if n.startswith(start)}
        )


def open_prior(settings: PriorSettings, spec: DataSpec) -> Prior | None:
    """Return the prior that the settings name, for the classes of a data set; None for ``none``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no such prior; a damaged file; or one that does not fit the data set.
    """
    name = settings.prior
    if name == NONE:
        return None
    kind, _, path = name.partition(":")
    if name != STROKES and (kind != "folder" or not path):
        raise ValueError(f"prior={name!r} must be {STROKES}, folder:PATH or {NONE}")
    if not spec.class_names:
        raise ValueError(f"prior={name} needs a data set that names its classes; set prior={NONE}")
    folder = shipped(spec.class_names) if name == STROKES else Path(path)
    about = json.loads((folder / ABOUT).read_text())
    known = tuple(about["class-names"])
    unknown = sorted(set(spec.class_names) - set(known))
    if spec.image_shape != IMAGE_SHAPE or unknown:
        what = f"class {unknown[0]!r}" if unknown else f"images of shape {spec.image_shape}"
        raise ValueError(
            f"prior={name} has no {what}: its classes are {', '.join(known)}, of shape "
            f"{IMAGE_SHAPE}; train another (fed-gswgan prior train), or set prior={NONE}"
        )
    drawn = about["source"] == STROKES
    if not drawn and known != spec.class_names:
        raise ValueError(f"prior={name} must have the data set's {len(spec.class_names)} classes")
    rows = torch.tensor([known.index(name) for name in spec.class_names])
    weights = {}
    for key, tensor in _opened(folder, WEIGHTS, about).items():
        of_class = key.endswith("class_embedding.weight")
        weights[key] = tensor[rows] if of_class else tensor
    return Prior(about, spec.class_names, weights, drawn, folder)


def open_features(settings: PriorSettings, spec: DataSpec) -> Features:
    """Return the features that the settings name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such features, too many components, or images that they do not suit.
    """
    name = settings.features
    frequencies = settings.feature_frequencies or FREQUENCIES
    channels, height, width = spec.image_shape
    if height != width or frequencies > width:
        raise ValueError(
            f"feature-frequencies={frequencies} must be <= {min(height, width)}, the side of "
            f"square images; these are {height} x {width}"
        )
    kind, _, path = name.partition(":")
    if name == "dct":
        return Features(frequencies)
    if name not in (STROKES, "random") and (kind != "file" or not path):
        raise ValueError(f"features={name!r} must be {STROKES}, dct, random or file:PATH")
    if channels != 1:
        raise ValueError(
            f"features={name} reads images of one channel, these have {channels}; set features=dct"
        )
    if name == "random":
        components = _random_components()
    else:
        file = shipped(CHARACTERS) / FEATURES if name == STROKES else Path(path)
        components = _components(file)
    return Features(frequencies, components, settings.feature_components or COMPONENTS).eval()


def shipped(class_names: Sequence[str]) -> Path:
    """Return the folder of the prior of drawn characters that has these classes."""
    name = "digits" if tuple(class_names) == DIGITS else "all"
    return SHIPPED / f"prior-{name}"


@lru_cache(maxsize=2)
def drawn_pool(class_names: tuple[str, ...], seed: int) -> Tensor:
    """Return the pool of the prior of drawn characters, (L, M, H, W)."""
    return draw_pool(class_names, pool_images(len(class_names)), SeedStream(seed))


def pool_images(classes: int) -> int:
    """Return how many images of a class a pool has, at most."""
    return min(LARGEST_POOL // classes, MOST_IMAGES)


def write_prior(
    folder: Path,
    about: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    features: NetworkComponents | None,
    pool_LMHW: Tensor | None,
) -> None:
    """Write a prior's files, numbers in float16, with their checksums.

    Args:
        folder: is made.
        about: source, class-names, seed, and the settings of each network.
        networks: ``generator`` and ``critic``.
        features: None: not written.
        pool_LMHW: None: drawn anew whenever it is needed.
    """
    written = {
        f"{part}/{name}": tensor
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    blobs = {WEIGHTS: _halved(written)}
    if features is not None:
        blobs[FEATURES] = _halved(features.state_dict())
    if pool_LMHW is not None:
        blobs[POOL] = save({"pool": (255 * pool_LMHW).round().byte().cpu().contiguous()})
    _write(folder, about, blobs)


def write_judge(folder: Path, about: Mapping[str, Any], judge: StrokeJudge) -> None:
    """Write the second judge, numbers in float16, with its checksum."""
    _write(folder, about, {JUDGE: _halved(judge.state_dict())})


def _write(folder: Path, about: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    for name, blob in blobs.items():
        (folder / name).write_bytes(blob)
    (folder / ABOUT).write_text(json.dumps({**about, "sha256": checksums}, indent=1) + "\n")


def _halved(tensors: Mapping[str, Tensor]) -> bytes:
    halved = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    return save({n: t.cpu().contiguous() for n, t in halved.items()})


def _opened(folder: Path, name: str, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a file's tensors, float16 as float32; ValueError if it is not what was written."""
    blob = (folder / name).read_bytes()
    if hashlib.sha256(blob).hexdigest() != about["sha256"].get(name):
        raise ValueError(f"{folder / name} is damaged: its SHA-256 is not that of {ABOUT}")
    return {n: t.float() if t.is_floating_point() else t for n, t in load(blob).items()}


@lru_cache(maxsize=4)
def _components(file: Path) -> NetworkComponents:
    """Return the network and components in a file, checked against the note beside it."""
    about = json.loads((file.parent / ABOUT).read_text())
    state = _opened(file.parent, file.name, about)
    width, components = len(state["hidden.first.0.weight"]), len(state["basis_KA"])
    with initial_weights_from(0):  # which leaves global randomness alone
        found = NetworkComponents(HiddenLayers(width), components)
    found.load_state_dict(state)
    return found.eval().to(memory_format=torch.channels_last)  # quicker on a CPU


@lru_cache(maxsize=1)
def open_judge() -> StrokeJudge:
    """Return the second judge, in eval mode."""
    folder = SHIPPED / "judge"
    about = json.loads((folder / ABOUT).read_text())
    with initial_weights_from(0):  # which leaves global randomness alone
        judge = StrokeJudge(len(about["class-names"]))
    judge.load_state_dict(_opened(folder, JUDGE, about))
    return judge.eval()


@lru_cache(maxsize=1)
def _random_components() -> NetworkComponents:
    """Return a network that never learned, and its components over drawings."""
    width, components = RANDOM_NETWORK
    with initial_weights_from(0):
        found = NetworkComponents(HiddenLayers(width), components)
    found.fit(drawn_pool(DIGITS, 0).flatten(0, 1)[:5000, None])
    return found

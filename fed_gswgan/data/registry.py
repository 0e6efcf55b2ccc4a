"""Data sets by name, and what two settings change in any of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fed_gswgan.data.characters import IMAGE_SHAPE, emnist_class_set
from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages, WriterSource
from fed_gswgan.data.digits import DigitsSource
from fed_gswgan.data.drawn import open_drawn
from fed_gswgan.data.emnist import open_fed_emnist, open_leaf_femnist
from fed_gswgan.data.flwr_dataset import open_flwr_femnist
from fed_gswgan.data.held_out import fixed_fraction
from fed_gswgan.data.image_folder import open_image_folder
from fed_gswgan.data.qmnist import QmnistSource
from fed_gswgan.data.writers import open_writers
from fed_gswgan.settings import Count, Settings, Share, Whole, plug_in

MOST_CLASSES = 256
MOST_VIRTUAL_CLIENTS = 100_000  # a client's id has five digits
DATASETS = (
    "writers", "digits", "drawn", "qmnist", "fed-emnist", "leaf-femnist", "flwr-femnist", "folder",
    "devices",
)  # fmt: skip


class DataSettings(Settings):
    """Whose images, and how they are dealt to clients."""

    dataset: str = "digits"
    """writers (real ones, who come along), digits, drawn (by simulated writers), qmnist,
    fed-emnist, leaf-femnist, flwr-femnist, folder, or package.module:Class; devices: none on the
    server, whose devices hold their own"""
    data_dir: str = ""
    """where it lies; empty: the folder named by FED_GSWGAN_DATA"""
    classes: Literal["digits", "letters", "all", "merged"] = "all"
    """merged: EMNIST's 47"""
    min_images_per_writer: Whole = 1
    """writers with fewer are left out; 0: none is, and who has no image answers with noise"""
    writers_per_client: Count = 1
    """each of them is charged in the client's ledger"""
    max_clients: Whole = 0
    """keep the first so many clients; 0: all; of devices: to wait for"""
    virtual_clients: Annotated[int, Field(ge=0, le=MOST_VIRTUAL_CLIENTS)] = 0
    """so many, who share those clients' images in turn; 0: nobody shares"""
    drawn_writers: Count = 1300
    """simulated writers of the data set drawn, the held-out tenth included"""
    writers_file: str = ""
    """a file of writer ids, one a line: only these; empty: all"""
    swapped_share: Share = 0.0
    """of the writers, whose ink and paper are swapped: a planted fault"""


def open_source(config: DataSettings) -> WriterSource:
    """Open the data set that the settings name; no shard is read.

    Where ``data_dir`` is empty, the folder is that of the environment variable FED_GSWGAN_DATA.

    Raises:
        FileNotFoundError: a file is missing; the message says which and what to set.
        ValueError: a file is damaged or of another layout, or the settings do not fit the data set.
        ModuleNotFoundError: ``flwr-femnist`` without its extra.
    """
    source = _open(config)
    if len(source.class_names) > MOST_CLASSES:
        raise ValueError(
            f"dataset={config.dataset} has {len(source.class_names)} classes, must be <= "
            f"{MOST_CLASSES}: a label is a byte on the wire"
        )
    if not config.swapped_share and not config.writers_file:
        return source
    return AlteredSource(
        source=source,
        swapped_share=config.swapped_share,
        writer_ids=chosen_writers(source.writer_ids, config.writers_file),
    )


def _open(config: DataSettings) -> WriterSource:
    if ":" in config.dataset:
        members = ("image_shape", "class_names", "writer_ids", "shard", "held_out")
        found: WriterSource = plug_in("dataset", config.dataset, members)(config)
        return found
    folder, classes, minimum = config.data_dir, config.classes, config.min_images_per_writer
    match config.dataset:
        case "writers":
            return open_writers(classes, minimum)
        case "digits":
            return DigitsSource(classes, minimum)
        case "drawn":
            return open_drawn(config.drawn_writers, classes, minimum)
        case "qmnist":
            return QmnistSource(folder, classes, minimum)
        case "fed-emnist":
            return open_fed_emnist(folder, classes, minimum)
        case "leaf-femnist":
            return open_leaf_femnist(folder, classes, minimum)
        case "flwr-femnist":
            return open_flwr_femnist(classes, minimum)
        case "folder":
            return open_image_folder(folder, classes, minimum)
        case "devices":
            return RemoteDevices(classes, config.max_clients)
    raise ValueError(f"dataset={config.dataset!r} must be one of {', '.join(DATASETS)}")


class RemoteDevices:
    """Devices that hold their own images; a ``WriterSource`` without an image.

    Args:
        classes: one of EMNIST's sets; the devices' owners name the same.
        expected: devices that a run waits for before it begins; others may join later.
    """

    name = "devices"
    unit = "the owner of a device"
    image_shape = IMAGE_SHAPE
    held_out_writers: tuple[str, ...] = ()

    def __init__(self, classes: str, expected: int) -> None:
        self.class_names = emnist_class_set(classes).names
        self.writer_ids = tuple(f"device-{number}" for number in range(expected))

    def shard(self, writer_id: str) -> ClientDataset:
        """Refuse: ValueError."""
        raise ValueError(f"dataset=devices: the images of {writer_id} are on its device alone")

    def held_out(self) -> LabelledImages:
        """Refuse: ValueError."""
        raise ValueError("dataset=devices must have evaluation-samples=0: no image is held out")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AlteredSource:
    """A ``WriterSource`` with a choice of writers, some of whose images have a planted fault.

    Both serve the debugging scenario: a faulty device swaps ink and paper, and a generator trained
    on some of the writers shows what is wrong with them. Held-out images are never altered.

    Args:
        source: the source to alter.
        swapped_share: of the writers, in [0, 1], whose ink and paper are swapped; which ones
            follows from their ids alone.
        writer_ids: the clients' writers, in the order of ``source``.

    Source: Augenstein et al., arXiv 1911.06679, section 6: federated debugging.
    """

    source: Any
    swapped_share: float
    writer_ids: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        """Return what ``source`` has."""
        return getattr(self.source, name)

    @property
    def ink_on_paper(self) -> bool:
        """Whether paper is 0 and ink 1 on every image."""
        return not self.swapped_share and bool(getattr(self.source, "ink_on_paper", False))

    def shard(self, writer_id: str) -> ClientDataset:
        """Read one writer's images, ink and paper swapped if the writer is one of those."""
        if writer_id not in self.writer_ids:
            raise ValueError(f"{self.source.name}: writer {writer_id!r} is none of the chosen ones")
        shard: ClientDataset = self.source.shard(writer_id)
        if not is_swapped(writer_id, self.swapped_share):
            return shard
        return ClientDataset(shard.writer_ids, 1 - shard.images, shard.labels)


def is_swapped(writer_id: str, swapped_share: float) -> bool:
    """Tell whether a writer's ink and paper are swapped."""
    return fixed_fraction(f"swapped writer {writer_id}") < swapped_share


def chosen_writers(all_ids: tuple[str, ...], writers_file: str) -> tuple[str, ...]:
    """Return the writers that a file names, an id a line; all of them without a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it names no writer, or one without a shard.
    """
    if not writers_file:
        return all_ids
    named = set(Path(writers_file).read_text().split())
    if unknown := sorted(named - set(all_ids)):
        raise ValueError(
            f"writers-file={writers_file}: {unknown[0]!r} has no shard in the data set"
        )
    if not named:
        raise ValueError(f"writers-file={writers_file} must name at least one writer")
    return tuple(writer for writer in all_ids if writer in named)

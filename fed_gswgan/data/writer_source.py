"""What training and evaluation may ask of a data set, and how one is opened."""

from typing import Protocol

from fed_gswgan.config import DataConfig
from fed_gswgan.data.altered_source import AlteredSource, chosen_writers
from fed_gswgan.data.digits import DigitsSource
from fed_gswgan.data.fed_emnist import open_fed_emnist
from fed_gswgan.data.flwr_femnist import open_flwr_femnist
from fed_gswgan.data.image_folder import open_image_folder
from fed_gswgan.data.leaf_json import open_leaf_femnist
from fed_gswgan.data.qmnist import QmnistSource
from fed_gswgan.data.remote_devices import RemoteDevices
from fed_gswgan.data.writer_shard import LabelledImages, WriterShard

MOST_CLASSES = 256


class WriterSource(Protocol):
    """Images by writer, some of them held out of every shard.

    Guarantees: no image of ``held_out`` is in any shard, whatever the run's seed. Where
    ``held_out_writers`` is not empty, no writer of it is in ``writer_ids`` either.
    """

    @property
    def name(self) -> str:
        """The data set, as in ``DataConfig.dataset``."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, in the order of the labels."""

    @property
    def unit(self) -> str:
        """What one user is, to say who is protected."""

    @property
    def writer_ids(self) -> tuple[str, ...]:
        """The clients' writers: in a fixed order, none below the minimum, none held out."""

    @property
    def held_out_writers(self) -> tuple[str, ...]:
        """Who wrote the held-out images; empty where the shards' writers did."""

    def shard(self, writer_id: str) -> WriterShard:
        """Read the images of one of ``writer_ids``."""

    def held_out(self) -> LabelledImages:
        """Read the images for evaluation."""


def open_source(config: DataConfig) -> WriterSource:
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


def _open(config: DataConfig) -> WriterSource:
    folder, classes, minimum = config.data_dir, config.classes, config.min_images_per_writer
    match config.dataset:
        case "digits":
            return DigitsSource(classes, minimum)
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
    raise AssertionError(f"dataset={config.dataset!r} passed DataConfig's check")

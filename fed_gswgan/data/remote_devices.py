"""The data of devices that their owners keep: all that the server knows of it is what to expect."""

from fed_gswgan.data.class_sets import emnist_class_set
from fed_gswgan.data.writer_shard import LabelledImages, WriterShard


class RemoteDevices:
    """A ``WriterSource`` without an image: class names, and how many devices to wait for.

    Args:
        classes: one of EMNIST's sets; the devices' owners name the same.
        expected: devices that a run waits for before it begins; others may join later.
    """

    name = "devices"
    unit = "the owner of a device"
    held_out_writers: tuple[str, ...] = ()

    def __init__(self, classes: str, expected: int) -> None:
        self.class_names = emnist_class_set(classes).names
        self.writer_ids = tuple(f"device-{number}" for number in range(expected))

    def shard(self, writer_id: str) -> WriterShard:
        """Refuse: ValueError."""
        raise ValueError(f"dataset=devices: the images of {writer_id} are on its device alone")

    def held_out(self) -> LabelledImages:
        """Refuse: ValueError."""
        raise ValueError("dataset=devices must have evaluation-samples=0: no image is held out")

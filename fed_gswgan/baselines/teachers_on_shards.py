"""Teachers, each on its own shard of the images.

Shapes: N images, M teachers, S images of a shard, C channels, H and W image.
"""

import torch
from torch import Tensor

from fed_gswgan.baselines.gpate_settings import GPATESettings
from fed_gswgan.baselines.linear_teachers import LinearTeachers
from fed_gswgan.baselines.teachers import Teachers
from fed_gswgan.seeding import SeedStream


def teachers_on_shards(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: GPATESettings,
    seeds: SeedStream,
) -> Teachers | LinearTeachers:
    """Deal the images to shards of one size at random, and set a teacher on each.

    Raises:
        ValueError: fewer images than teachers.
    """
    size = len(labels_N) // settings.teachers
    if size == 0:
        raise ValueError(
            f"teachers={settings.teachers} must be at most the {len(labels_N)} training images"
        )
    order = torch.from_numpy(seeds.generator("shards").permutation(len(labels_N)))
    order_MS = order[: size * settings.teachers].view(settings.teachers, size)
    order_MS = order_MS.to(labels_N.device)
    shards = images_NCHW[order_MS].flatten(2), labels_N[order_MS]
    rate, randomness = settings.teacher_learning_rate, seeds.generator("teachers")
    if settings.teacher_width == 0:
        return LinearTeachers(*shards, num_classes, rate, randomness)
    return Teachers(*shards, num_classes, settings.teacher_width, rate, randomness)

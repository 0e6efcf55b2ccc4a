import numpy as np
import torch

from fed_gswgan.baselines.shard_batches import draw_shard_batches


def test_every_teacher_gets_images_of_its_own_shard_with_their_labels():
    numbers_MS = torch.arange(12).view(3, 4)
    images_MSP = numbers_MS[:, :, None].expand(3, 4, 5).float()
    images_MRP, labels_MR = draw_shard_batches(images_MSP, numbers_MS, 50, np.random.default_rng(0))
    assert images_MRP.shape == (3, 50, 5)
    assert torch.equal(images_MRP, labels_MR[:, :, None].expand(3, 50, 5).float())
    for teacher in range(3):
        assert set(labels_MR[teacher].tolist()) == set(numbers_MS[teacher].tolist())

import numpy as np

from fed_gswgan.baselines.shard_critics import disjoint_shards


def test_shards_are_disjoint_and_hold_every_image(data):
    images_NCHW, labels_N = data(10)
    shards = disjoint_shards(images_NCHW, labels_N, 4, np.random.default_rng(0))
    assert [len(shard.labels) for shard in shards] == [3, 3, 2, 2]
    held = {image.tobytes() for shard in shards for image in shard.images}
    assert held == {image.tobytes() for image in images_NCHW.numpy()}

from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.wire.messages import TrainRequest


@pytest.fixture
def request_():
    return TrainRequest(
        experiment_id="run-1",
        server_round=3,
        checkpoint_round=2,
        samples_BCHW=np.zeros((2, 1, 28, 28), dtype=np.float32),
        labels_B=np.array([0, 1]),
        critic_samples_NBCHW=np.zeros((1, 2, 1, 28, 28), dtype=np.float32),
        critic_labels_NB=np.array([[0, 1]]),
        clipping="sample",
        clipping_bound=1.0,
        noise_stddev=2.14,
    )


def one_pixel_up(images):
    changed = images.copy()
    changed.flat[-1] = np.float32(2**-20)
    return changed


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("experiment_id", lambda value: "run-2"),
        ("server_round", lambda value: 4),
        ("clipping", lambda value: "message"),
        ("clipping_bound", lambda value: value / 2),
        ("noise_stddev", lambda value: value * 2),
        ("samples_BCHW", one_pixel_up),
        ("samples_BCHW", lambda value: value.reshape(2, 1, 14, 56)),
        ("samples_BCHW", lambda value: value.view(np.int32)),
        ("labels_B", lambda value: value[::-1]),
        ("critic_samples_NBCHW", one_pixel_up),
        ("critic_samples_NBCHW", lambda value: value[:0]),
        ("critic_labels_NB", lambda value: value[:, ::-1]),
    ],
)
def test_hash_changes_with_every_field_that_decides_the_reply(request_, field, change):
    changed = replace(request_, **{field: change(getattr(request_, field))})
    assert changed.hash() != request_.hash()


def test_hash_does_not_change_with_the_checkpoint_round(request_):
    assert replace(request_, checkpoint_round=0).hash() == request_.hash()


def test_hash_is_of_the_values_and_not_of_their_place_in_memory(request_):
    copied = replace(request_, samples_BCHW=np.asfortranarray(request_.samples_BCHW))
    assert copied.hash() == request_.hash()


def test_hash_tells_the_answered_samples_from_the_critics(request_):
    samples = one_pixel_up(request_.samples_BCHW)
    answered = replace(request_, samples_BCHW=samples)
    critics = replace(request_, critic_samples_NBCHW=samples[None])
    assert answered.hash() != critics.hash()


def test_critic_batches_are_the_further_samples_where_there_are_some(request_):
    samples, labels = request_.critic_batches()
    assert samples is request_.critic_samples_NBCHW
    assert labels is request_.critic_labels_NB


def test_critic_batches_are_else_the_answered_samples_as_one_batch(request_):
    bare = replace(
        request_,
        critic_samples_NBCHW=request_.critic_samples_NBCHW[:0],
        critic_labels_NB=request_.critic_labels_NB[:0],
    )
    samples, labels = bare.critic_batches()
    assert samples.shape == (1, 2, 1, 28, 28)
    assert np.array_equal(labels, [[0, 1]])

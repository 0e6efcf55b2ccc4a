import numpy as np
import pytest

from fed_gswgan.device.request_check import check_request
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import MalformedInput, RequestExceedsPolicy

POLICY = DevicePolicy(max_samples=4, max_critic_batches=2)
NUM_CLASSES = 3


def images(*leading, value=0.5, dtype=np.float32):
    return np.full((*leading, 1, 28, 28), value, dtype=dtype)


def labels(*shape, value=0, dtype=np.int64):
    return np.full(shape, value, dtype=dtype)


def poisoned(value):
    samples = images(4)
    samples[3, 0, 27, 27] = value
    return samples


def without(**fields):
    """Fields of a request without further critic batches, some replaced."""
    return {"samples_BCHW": images(4), "labels_B": labels(4)} | fields


def with_critic_batches(samples, critic_labels):
    return without(critic_samples_NBCHW=samples, critic_labels_NB=critic_labels)


HOSTILE = {
    "round 0": ("server-round=0", {"server_round": 0}),
    "negative round": ("server-round=-1", {"server_round": -1}),
    "endless round": ("server-round=", {"server_round": 2**41}),
    "round that is no number": ("server-round is a float", {"server_round": float("nan")}),
    "checkpoint of the same round": ("checkpoint-round=1", {"checkpoint_round": 1}),
    "checkpoint of a later round": ("checkpoint-round=7", {"checkpoint_round": 7}),
    "negative checkpoint": ("checkpoint-round=-1", {"checkpoint_round": -1}),
    "negative frequencies": ("dct-frequencies=-1", {"dct_frequencies": -1}),
    "more frequencies than pixels": ("dct-frequencies=29", {"dct_frequencies": 29}),
    "a basis in words": ("dct-frequencies is a str", {"dct_frequencies": "8"}),
    "unknown codec": ("uplink-codec='uint3'", {"uplink_codec": "uint3"}),
    "codec that cannot be printed": ("uplink-codec of 1 char", {"uplink_codec": "\n"}),
    "NaN pixel": ("samples must", without(samples_BCHW=poisoned(np.nan))),
    "infinite pixel": ("samples must", without(samples_BCHW=poisoned(np.inf))),
    "huge pixel": ("samples must", without(samples_BCHW=poisoned(1e30))),
    "pixel above 1": (
        "samples must",
        without(samples_BCHW=poisoned(1 + 2**-23)),
    ),
    "negative pixel": ("samples must", without(samples_BCHW=poisoned(-1e-6))),
    "double pixels": ("samples is", without(samples_BCHW=images(4, dtype=np.float64))),
    "byte pixels": ("samples is", without(samples_BCHW=images(4, value=0, dtype=np.uint8))),
    "object pixels": ("samples is", without(samples_BCHW=images(4, dtype=object))),
    "swapped bytes": ("samples is", without(samples_BCHW=images(4, dtype=">f4"))),
    "samples a scalar": ("samples is", without(samples_BCHW=np.array(0.5, np.float32))),
    "samples flat": ("samples is", without(samples_BCHW=images(4).reshape(4, 784))),
    "samples of rank 1": ("samples is", without(samples_BCHW=np.zeros(4, np.float32))),
    "samples of rank 5": ("samples is", without(samples_BCHW=images(4)[None].repeat(4, 0))),
    "other image size": ("samples is", without(samples_BCHW=images(4)[..., :27])),
    "three channels": ("samples is", without(samples_BCHW=images(4).repeat(3, 1))),
    "no samples": ("samples=0", without(samples_BCHW=images(0), labels_B=labels(0))),
    "too many samples": ("samples=5", without(samples_BCHW=images(5), labels_B=labels(5))),
    "negative label": ("labels must", without(labels_B=labels(4, value=-1))),
    "label beyond the classes": ("labels must", without(labels_B=labels(4, value=3))),
    "short labels": ("labels is", without(labels_B=labels(4, dtype=np.int32))),
    "fractional labels": ("labels is", without(labels_B=labels(4, dtype=np.float64))),
    "too few labels": ("labels is", without(labels_B=labels(3))),
    "labels of rank 2": ("labels is", without(labels_B=labels(4, 1))),
    "labels a scalar": ("labels is", without(labels_B=labels())),
    "too many critic batches": (
        "critic-samples holds 3 batches",
        with_critic_batches(images(3, 4), labels(3, 4)),
    ),
    "critic batch too large": (
        "critic-samples holds batches of 5",
        with_critic_batches(images(1, 5), labels(1, 5)),
    ),
    "empty critic batch": (
        "critic-samples holds batches of 0",
        with_critic_batches(images(2, 0), labels(2, 0)),
    ),
    "critic samples a scalar": (
        "critic-samples is",
        with_critic_batches(np.array(0.5, np.float32), labels(0, 4)),
    ),
    "critic samples of rank 1": (
        "critic-samples is",
        with_critic_batches(np.zeros(2, np.float32), labels(2)),
    ),
    "critic samples of rank 4": (
        "critic-samples",
        with_critic_batches(images(2), labels(2)),
    ),
    "NaN in critic samples": (
        "critic-samples must",
        with_critic_batches(images(2, 4, value=np.nan), labels(2, 4)),
    ),
    "double critic samples": (
        "critic-samples is",
        with_critic_batches(images(2, 4, dtype=np.float64), labels(2, 4)),
    ),
    "critic label beyond the classes": (
        "critic-labels must",
        with_critic_batches(images(2, 4), labels(2, 4, value=3)),
    ),
    "too few critic labels": (
        "critic-labels is",
        with_critic_batches(images(2, 4), labels(1, 4)),
    ),
    "critic labels without critic samples": (
        "critic-labels is",
        with_critic_batches(images(0, 4), labels(2, 4)),
    ),
}


@pytest.mark.parametrize(("named", "fields"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_request_is_refused_by_the_name_of_its_field(make_request, named, fields):
    with pytest.raises((MalformedInput, RequestExceedsPolicy), match=f"^{named}"):
        check_request(make_request(**fields), POLICY, NUM_CLASSES)


@pytest.mark.parametrize(("named", "fields"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_request_costs_nothing_and_opens_no_data(
    make_request, make_guard, charges, tmp_path, named, fields
):
    opened = []
    guard = make_guard(tmp_path / "client", lambda: opened.append(1))
    with pytest.raises((MalformedInput, RequestExceedsPolicy), match=f"^{named}"):
        guard.answer(make_request(**fields))
    assert charges(tmp_path / "client") == 0
    assert opened == []
    names = {p.name for p in (tmp_path / "client").iterdir()}
    assert names == {"ledger.jsonl", "ledger.head"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"server_round": 2**40, "checkpoint_round": 2**40 - 1},
        without(samples_BCHW=images(1), labels_B=labels(1)),
        without(samples_BCHW=images(4, value=0), labels_B=labels(4, value=2)),
        without(samples_BCHW=images(4, value=1)),
        with_critic_batches(images(2, 4), labels(2, 4, value=2)),
        with_critic_batches(images(1, 1), labels(1, 1)),
    ],
)
def test_request_within_the_settings_is_allowed(make_request, fields):
    request = make_request(**fields)
    event = check_request(request, POLICY, NUM_CLASSES)
    assert event == request.event()
    assert event.samples == len(request.samples_BCHW)


def test_device_that_allows_no_further_batches_refuses_one(make_request):
    request = make_request(**with_critic_batches(images(1, 4), labels(1, 4)))
    with pytest.raises(RequestExceedsPolicy, match="critic-samples holds 1 batches, must be <= 0"):
        check_request(request, DevicePolicy(max_samples=4), NUM_CLASSES)

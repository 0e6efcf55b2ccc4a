"""What a hostile server may ask: a table of named attacks, each a change to an allowed request.

An attack draws its variant from the generator it is given, so that one line of the table stands
for any number of requests; the same line says how a device must answer every one of them.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import MalformedInput, Refusal, RequestExceedsPolicy
from fed_gswgan.wire.messages import TrainRequest
from tests.fed_gswgan.device.attacked_device import NUM_CLASSES

Random = np.random.Generator
Change = Callable[[TrainRequest, Random], TrainRequest]

# What the attacked device allows: mu^2 = 4 x 8 / 2.14^2 = 7 for the dearest reply.
ALLOWED = DevicePolicy(
    max_samples=8,
    max_critic_batches=2,
    clipping="sample",
    max_clipping_bound=1.0,
    min_noise_stddev=2.14,
    delta=1e-5,
)


class Attack(NamedTuple):
    """A line of the table.

    Attributes:
        refusal: the one that every variant must meet; None for what a device may answer, at the
            charge of what it did.
        change: returns the request, changed.
    """

    refusal: type[Refusal] | None
    change: Change


class _Text(str):
    pass


class _Whole(int):
    pass


class _Real(float):
    pass


def honest_request(random: Random) -> TrainRequest:
    """Return a request that the device allows, varied in all that this leaves open."""
    samples = int(random.integers(1, ALLOWED.max_samples + 1))
    batches = int(random.integers(0, ALLOWED.max_critic_batches + 1))
    server_round = int(random.integers(1, 60))
    return TrainRequest(
        experiment_id=str(random.choice(["experiment", "another", "third"])),
        server_round=server_round,
        checkpoint_round=int(random.integers(0, server_round)),
        samples_BCHW=random.random((samples, 1, 28, 28), dtype=np.float32),
        labels_B=random.integers(0, NUM_CLASSES, samples),
        critic_samples_NBCHW=random.random((batches, samples, 1, 28, 28), dtype=np.float32),
        critic_labels_NB=random.integers(0, NUM_CLASSES, (batches, samples)),
        clipping=str(random.choice(["sample", "message"])),
        clipping_bound=float(random.choice([1.0, 0.5, 1e-3])),
        noise_stddev=float(ALLOWED.min_noise_stddev * random.choice([1, 3, 10, 100, 1e4])),
        dct_frequencies=int(random.choice([0, 1, 8, 28])),
        uplink_codec=str(random.choice(["float32", "uint8", "uint1"])),
    )


def both(honest: TrainRequest, one: TrainRequest, other: TrainRequest) -> TrainRequest:
    """Return what two attacks on the same request make of it together."""
    changed = {name: getattr(other, name) for name in honest.__dataclass_fields__}
    kept = {name: value for name, value in changed.items() if value is not getattr(honest, name)}
    return replace(one, **kept)


def _one_of(field: str, *values: Any) -> Change:
    """Return the change that sets a field to one of these values."""
    return lambda request, random: replace(request, **{field: values[random.integers(len(values))]})


def _images(field: str, spoil: Callable[[np.ndarray, Random], Any]) -> Change:
    """Return the change that puts what ``spoil`` makes of an image array in its place."""
    return lambda request, random: replace(
        request, **{field: spoil(getattr(request, field), random)}
    )


def _pixel(*values: float) -> Change:
    """Return the change that writes one of these numbers into a pixel, of either array."""

    def change(request: TrainRequest, random: Random) -> TrainRequest:
        request = _with_critic_batches(request, 1, len(request.samples_BCHW))
        field = str(random.choice(["samples_BCHW", "critic_samples_NBCHW"]))
        images = getattr(request, field).copy()
        images.flat[random.integers(images.size)] = values[random.integers(len(values))]
        return replace(request, **{field: images})

    return change


def _label(*values: int) -> Change:
    """Return the change that writes one of these numbers over a label, of either array."""

    def change(request: TrainRequest, random: Random) -> TrainRequest:
        request = _with_critic_batches(request, 1, len(request.samples_BCHW))
        field = str(random.choice(["labels_B", "critic_labels_NB"]))
        labels = getattr(request, field).copy()
        labels.flat[random.integers(labels.size)] = values[random.integers(len(values))]
        return replace(request, **{field: labels})

    return change


def _with_samples(request: TrainRequest, samples: int) -> TrainRequest:
    return replace(
        request,
        samples_BCHW=np.full((samples, 1, 28, 28), 0.5, np.float32),
        labels_B=np.zeros(samples, np.int64),
    )


def _with_critic_batches(request: TrainRequest, batches: int, samples: int) -> TrainRequest:
    return replace(
        request,
        critic_samples_NBCHW=np.full((batches, samples, 1, 28, 28), 0.5, np.float32),
        critic_labels_NB=np.zeros((batches, samples), np.int64),
    )


def _huge(request: TrainRequest, random: Random) -> TrainRequest:
    """Claim up to 2^40 images that take no memory: one number, repeated by a stride of 0."""
    samples = int(2 ** random.integers(20, 41))
    images = np.broadcast_to(np.float32(random.choice([0.5, np.nan])), (samples, 1, 28, 28))
    labels = np.broadcast_to(np.int64(random.choice([0, -1])), samples)
    if random.random() < 0.5:
        return replace(request, samples_BCHW=images, labels_B=labels)
    return replace(request, critic_samples_NBCHW=images[None], critic_labels_NB=labels[None])


def _of_another_type(request: TrainRequest, random: Random) -> TrainRequest:
    """Put something into a field that only looks like its type, or does not at all."""
    strangers = (
        None, True, False, 1, -1, 2.5, 1j, "x", b"x", [], (1,), {}, {1}, object(), int, len,
        np.float64(2.14), np.float32(1), np.int64(3), np.bool_(True), np.str_("sample"),
        np.array(None), np.zeros(1).view(np.recarray), np.ma.masked_array([1.0]),
        _Text("sample"), _Whole(1), _Real(2.14),
    )  # fmt: skip
    field = str(random.choice(list(request.__dataclass_fields__)))
    expected = type(getattr(request, field))
    others = [stranger for stranger in strangers if type(stranger) is not expected]
    return replace(request, **{field: others[random.integers(len(others))]})


def _other_dtype(request: TrainRequest, random: Random) -> TrainRequest:
    """Send the same numbers as another dtype."""
    arrays = ("samples_BCHW", "labels_B", "critic_samples_NBCHW", "critic_labels_NB")
    field = str(random.choice(arrays))
    array = getattr(request, field)
    dtypes = (
        "f2", "f8", "g", ">f4", "i1", "u1", "i2", "i4", "u8", ">i8", "?", "c8", "O", "U4", "S4",
        "M8[s]",
    )  # fmt: skip
    dtype = np.dtype(dtypes[random.integers(len(dtypes))])
    return replace(request, **{field: np.zeros(array.shape).astype(dtype)})


def _other_shape(request: TrainRequest, random: Random) -> TrainRequest:
    """Reshape, cut or extend one of the arrays."""
    request = _with_critic_batches(request, 1, len(request.samples_BCHW))
    changes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda array: array[None],
        lambda array: array[..., None],
        lambda array: array.reshape(-1, 1, 1),
        lambda array: np.concatenate([array, array], axis=-1),
        lambda array: array[..., :0],
        lambda array: array.ravel()[0].reshape(()),
        lambda array: np.zeros((2,) * 30, array.dtype)[(0,) * 20],
        lambda array: np.zeros((0, 2**40, 2**10), array.dtype),
    )
    arrays = ("samples_BCHW", "labels_B", "critic_samples_NBCHW", "critic_labels_NB")
    field = str(random.choice(arrays))
    change = changes[random.integers(len(changes))]
    return replace(request, **{field: change(getattr(request, field))})


def _laid_out_otherwise(request: TrainRequest, random: Random) -> TrainRequest:
    """Send a request that is allowed, in memory that is not as most arrays' is."""

    def frozen(array: np.ndarray) -> np.ndarray:
        copy = array.copy()
        copy.flags.writeable = False
        return copy

    layouts: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        frozen,
        np.asfortranarray,
        lambda array: array[::-1],
        lambda array: np.repeat(array, 2, axis=0)[::2],
        lambda array: np.broadcast_to(array[:1], array.shape),
    )
    fields = ("samples_BCHW", "labels_B")
    return replace(
        request,
        **{
            field: layouts[random.integers(len(layouts))](getattr(request, field))
            for field in fields
        },
    )


ATTACKS: dict[str, Attack] = {
    # Nothing wrong with them: what may be asked must stay possible.
    "as allowed": Attack(None, lambda request, random: request),
    "fewer rows": Attack(None, lambda request, random: _with_samples(request, 1)),
    "as many rows as allowed": Attack(
        None, lambda r, random: _with_samples(r, ALLOWED.max_samples)
    ),
    "an image of paper": Attack(None, _images("samples_BCHW", lambda a, random: np.zeros_like(a))),
    "no image of a generator": Attack(
        None, _images("samples_BCHW", lambda a, random: random.integers(0, 2, a.shape).astype("f4"))
    ),
    "the smallest pixels there are": Attack(None, _pixel(-0.0, 1e-45, 1e-40, 1.1754944e-38)),
    "unusual memory": Attack(None, _laid_out_otherwise),
    "unusual names": Attack(
        None,
        _one_of("experiment_id", "", "../..", "/etc", "\U0001f600" * 64, "\u65e5", "%s{}", "$(id)"),
    ),
    # More rounds, replays, going back.
    "round out of range": Attack(
        MalformedInput,
        _one_of("server_round", 0, -1, 2**40 + 1, 2**63, -(2**63), 10**5000, -(10**5000)),
    ),
    "round far ahead": Attack(
        None, lambda r, random: replace(r, server_round=int(2 ** random.integers(20, 41)))
    ),
    "first round again": Attack(None, lambda r, _: replace(r, server_round=1, checkpoint_round=0)),
    "checkpoint that cannot be": Attack(
        MalformedInput,
        _one_of("checkpoint_round", -1, -(2**62), 60, 2**62, 10**5000, -(10**5000)),
    ),
    "checkpoint long ago": Attack(None, _one_of("checkpoint_round", 0)),
    # Bigger batches.
    "no rows": Attack(MalformedInput, lambda r, random: _with_samples(r, 0)),
    "a row more": Attack(
        RequestExceedsPolicy, lambda r, _: _with_samples(r, ALLOWED.max_samples + 1)
    ),
    "many rows": Attack(
        RequestExceedsPolicy,
        lambda r, random: _with_samples(r, int(random.integers(ALLOWED.max_samples + 1, 200))),
    ),
    "many rows, clipped as a whole": Attack(
        RequestExceedsPolicy,
        lambda r, _: replace(_with_samples(r, ALLOWED.max_samples + 1), clipping="message"),
    ),
    "more rows than any memory": Attack(RequestExceedsPolicy, _huge),
    "more critic batches": Attack(
        RequestExceedsPolicy,
        lambda r, random: _with_critic_batches(
            r, ALLOWED.max_critic_batches + int(random.integers(1, 9)), 1
        ),
    ),
    "larger critic batches": Attack(
        RequestExceedsPolicy, lambda r, _: _with_critic_batches(r, 1, ALLOWED.max_samples + 1)
    ),
    "empty critic batches": Attack(
        MalformedInput, lambda r, random: _with_critic_batches(r, int(random.integers(1, 2**20)), 0)
    ),
    "no critic batches, huge ones": Attack(None, lambda r, _: _with_critic_batches(r, 0, 2**40)),
    # Less noise.
    "less noise": Attack(
        RequestExceedsPolicy,
        lambda r, random: replace(
            r,
            noise_stddev=float(
                ALLOWED.min_noise_stddev * random.choice([1e-8, 1e-3, 0.5, 1 - 2**-52])
            ),
        ),
    ),
    "noise that is none": Attack(
        MalformedInput,
        _one_of(
            "noise_stddev",
            0.0,
            -0.0,
            -2.14,
            -1e300,
            1e-9,
            5e-324,
            1e9,
            1e308,
            float("nan"),
            float("inf"),
            float("-inf"),
        ),
    ),
    "more noise": Attack(
        None,
        lambda r, random: replace(
            r,
            noise_stddev=float(
                ALLOWED.min_noise_stddev * random.choice([1 + 2**-52, 10, 1e4, 1e8])
            ),
        ),
    ),
    # Other clips.
    "larger clipping bound": Attack(
        RequestExceedsPolicy,
        _one_of("clipping_bound", ALLOWED.max_clipping_bound * (1 + 2**-52), 1.5, 1e3, 9.9e29),
    ),
    "clipping bound that is none": Attack(
        MalformedInput,
        _one_of(
            "clipping_bound",
            0.0,
            -0.0,
            -1.0,
            -1e300,
            1e-30,
            5e-324,
            1e30,
            1e308,
            float("nan"),
            float("inf"),
            float("-inf"),
        ),
    ),
    "smaller clipping bound": Attack(
        None, _one_of("clipping_bound", 1.1e-30, 1e-20, 1e-3, 1.0 - 2**-53)
    ),
    "smaller clipping bound for its noise": Attack(
        RequestExceedsPolicy,
        lambda r, random: replace(
            r, clipping_bound=1e-3, noise_stddev=ALLOWED.min_noise_stddev * 1e-3
        ),
    ),
    "unknown clipping": Attack(
        MalformedInput,
        _one_of(
            "clipping", "", "none", "SAMPLE", "sample ", "batch", "sample\n", "\ud800", "x" * 10**6
        ),
    ),
    # Other ways to write the reply.
    "frequencies that no image has": Attack(
        MalformedInput, _one_of("dct_frequencies", -1, 29, 2**62, -(10**5000))
    ),
    "unknown codec": Attack(
        MalformedInput,
        _one_of("uplink_codec", "", "float64", "uint3", "UINT8", "pickle", "\ud800", "x" * 10**6),
    ),
    # Malformed, NaN and huge inputs.
    "pixel out of range": Attack(
        MalformedInput,
        _pixel(np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e9, 1 + 2**-23, -1e-45, -1.0),
    ),
    "all pixels out of range": Attack(
        MalformedInput, _images("samples_BCHW", lambda a, _: np.full_like(a, np.nan))
    ),
    "label out of range": Attack(MalformedInput, _label(-1, NUM_CLASSES, 2**62, -(2**63))),
    "too few labels": Attack(MalformedInput, lambda r, _: replace(r, labels_B=r.labels_B[1:])),
    "another type": Attack(MalformedInput, _of_another_type),
    "another dtype": Attack(MalformedInput, _other_dtype),
    "another shape": Attack(MalformedInput, _other_shape),
    "a name that is none": Attack(
        MalformedInput,
        _one_of("experiment_id", "x" * 65, "x" * 10**6, "a\0b", "\n", "\u202e", "\u200b", "\ud800"),
    ),
}

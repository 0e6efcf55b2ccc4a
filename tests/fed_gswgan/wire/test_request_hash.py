import numpy as np
import pytest

from fed_gswgan.wire.request_hash import request_hash

ASKED = ("experiment", 3, {"samples": 2})
ARRAYS = (np.zeros((2, 3), np.float32), np.arange(2))


def test_the_same_request_has_the_same_hash_however_its_arrays_lie_in_memory():
    found = request_hash(ASKED, ARRAYS)
    assert len(found) == 64
    assert request_hash(ASKED, (np.asfortranarray(ARRAYS[0]), ARRAYS[1].copy())) == found


@pytest.mark.parametrize(
    ("asked", "arrays"),
    [
        (("experiment", 4, {"samples": 2}), ARRAYS),
        (("experiment", "3", {"samples": 2}), ARRAYS),
        (ASKED, (ARRAYS[0] + np.float32(1e-30), ARRAYS[1])),
        (ASKED, (ARRAYS[0].reshape(3, 2), ARRAYS[1])),
        (ASKED, (ARRAYS[0].astype(np.float64), ARRAYS[1])),
        (ASKED, ARRAYS[::-1]),
        (ASKED, ARRAYS[:1]),
    ],
)
def test_any_other_request_has_another(asked, arrays):
    assert request_hash(asked, arrays) != request_hash(ASKED, ARRAYS)

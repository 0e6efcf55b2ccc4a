import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fed_gswgan.wire.fields import require_dtype, scalar
from fed_gswgan.wire.record_fields import fields_of, records_of

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_what_was_put_in_comes_out():
    arrays, config = fields_of(records_of({"values": VALUES}, {"server-round": 3}))
    assert np.array_equal(arrays["values"], VALUES)
    assert dict(config) == {"server-round": 3}


def test_an_array_that_says_another_shape_than_its_bytes_have_is_refused():
    array = Array(VALUES)
    lying = Array(dtype=array.dtype, shape=(3, 2), stype=array.stype, data=array.data)
    records = RecordDict({"arrays": ArrayRecord({"values": lying}), "config": ConfigRecord({})})
    with pytest.raises(ValueError, match=r"values says shape \(3, 2\) and has \(2, 3\)"):
        fields_of(records)


def test_a_bool_is_no_whole_number_and_float32_no_float64():
    with pytest.raises(TypeError, match="server-round is a bool, must be int"):
        scalar(ConfigRecord({"server-round": True}), "server-round", int)
    with pytest.raises(TypeError, match="values has dtype float32, must be float64"):
        require_dtype("values", VALUES, np.float64)

import math

import pytest

from fed_gswgan.validation import at_least, between, non_negative, one_of, positive, share


@pytest.mark.parametrize("value", [0, -1, 0.0, math.nan, math.inf, -math.inf, True, "1", None])
def test_positive_refuses(value):
    with pytest.raises(ValueError, match=rf"^clipping-bound={value!r} must be "):
        positive(clipping_bound=value)


@pytest.mark.parametrize("value", [5e-324, 1, 1e300])
def test_positive_accepts(value):
    assert positive(clipping_bound=value) is None


@pytest.mark.parametrize("value", [-1, -5e-324, math.nan, math.inf, False, "0"])
def test_non_negative_refuses(value):
    with pytest.raises(ValueError, match=rf"^gradient-penalty={value!r} must be "):
        non_negative(gradient_penalty=value)


@pytest.mark.parametrize("value", [0, 0.0, 1e300])
def test_non_negative_accepts(value):
    assert non_negative(gradient_penalty=value) is None


@pytest.mark.parametrize("value", [2, 2.5, 3.5, -3, math.nan, math.inf, True, "3"])
def test_at_least_refuses_what_is_smaller_or_not_whole(value):
    with pytest.raises(ValueError, match=rf"^batch-size={value!r} must be "):
        at_least(3, batch_size=value)


@pytest.mark.parametrize("value", [3, 4, 3.0, 2**70])
def test_at_least_accepts(value):
    assert at_least(3, batch_size=value) is None


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, math.nan, math.inf, True])
def test_between_excludes_both_ends(value):
    with pytest.raises(ValueError, match=rf"^delta={value!r} must "):
        between(0, 1, delta=value)


def test_between_accepts_the_inside():
    assert between(0, 1, delta=5e-324) is None


def test_one_of_names_value_and_choices():
    assert one_of(("sample", "message"), clipping="message") is None
    with pytest.raises(ValueError, match=r"^clipping='row' must be one of sample, message$"):
        one_of(("sample", "message"), clipping="row")


def test_between_names_both_ends():
    with pytest.raises(ValueError, match=r"^noise-stddev=0 must .* 1e-09 and 1000000000.0$"):
        between(1e-9, 1e9, noise_stddev=0)


@pytest.mark.parametrize("value", [-1e-9, 1.1, math.nan, math.inf, True, "0"])
def test_share_refuses(value):
    with pytest.raises(ValueError, match=rf"^swapped-share={value!r} must "):
        share(swapped_share=value)


@pytest.mark.parametrize("value", [0, 0.5, 1, 1.0])
def test_share_accepts(value):
    assert share(swapped_share=value) is None

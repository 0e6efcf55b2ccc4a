import pytest

from fed_gswgan.data.held_out import fixed_fraction, split_writers


def writers(count, images=100):
    return {f"f{number:04d}_00": images for number in range(count)}


@pytest.mark.parametrize("count", [2, 3, 10, 40, 500])
def test_every_writer_is_either_client_or_held_out_and_both_exist(count):
    split = split_writers(writers(count), 1, "here")
    assert split.clients
    assert split.held_out
    assert sorted(split.clients + split.held_out) == sorted(writers(count))


def test_about_a_tenth_is_held_out():
    assert 0.08 < len(split_writers(writers(2000), 1, "here").held_out) / 2000 < 0.12


def test_writers_below_the_minimum_are_used_for_nothing():
    split = split_writers({**writers(50), "small": 59, "enough": 60}, 60, "here")
    assert "enough" in split.clients + split.held_out
    assert "small" not in split.clients + split.held_out


def test_another_minimum_never_turns_a_held_out_writer_into_a_client():
    counts = {writer: 20 + number for number, writer in enumerate(writers(400))}
    loose, strict = (split_writers(counts, minimum, "here") for minimum in (1, 200))
    assert not set(loose.held_out) & set(strict.clients)
    assert not set(strict.held_out) & set(loose.clients)


def test_the_order_of_the_writers_changes_nothing():
    counts = writers(100)
    assert split_writers(counts, 1, "x") == split_writers(dict(reversed(counts.items())), 1, "x")


def test_the_choice_is_the_same_on_every_machine():
    assert split_writers(writers(30), 1, "here").held_out == ("f0016_00", "f0022_00")
    assert fixed_fraction("held-out writer f2103_07") == pytest.approx(0.6719105819064, abs=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_writers_are_refused_with_the_numbers(count):
    with pytest.raises(ValueError, match=f"here: {count} of .*min-images-per-writer=60"):
        split_writers({**writers(count), "small": 1}, 60, "here")


def test_fractions_lie_in_the_unit_interval_and_spread():
    fractions = [fixed_fraction(str(number)) for number in range(1000)]
    assert min(fractions) >= 0
    assert max(fractions) < 1
    assert sum(fractions) / 1000 == pytest.approx(0.5, abs=0.05)

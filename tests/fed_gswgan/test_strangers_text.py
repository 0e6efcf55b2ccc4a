import pytest

from fed_gswgan.strangers_text import one_line


@pytest.mark.parametrize("text", ["", "max-epsilon=1 would be passed", "größer 号"])
def test_a_line_that_can_be_read_is_as_it_was(text):
    assert one_line(text) == text


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b", "\0", "\u2028", "\ud800", "\u202e"])
def test_nothing_breaks_the_line_or_moves_the_cursor(sign):
    assert one_line(f"spent{sign}round 4: all is well") == "spent?round 4: all is well"


def test_it_is_cut_at_three_hundred_characters():
    assert one_line("x" * 10_000) == "x" * 300
    assert one_line("\n" * 301) == "?" * 300

import io

from rich.console import Console

from fed_gswgan.progress import tell
from fed_gswgan.reporting.progress_bar import bars_on


def shown(terminal, happens):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with bars_on(console):
        happens(console)
    return console.file.getvalue()


def test_nothing_is_written_where_there_is_no_terminal():
    assert shown(False, lambda console: tell("rounds", 1, 8)) == ""


def test_a_terminal_shows_each_step_under_way_and_how_far_it_is():
    def happens(console):
        tell("rounds", 1, 8)
        tell("fit", 3, 5)
        console.print("meanwhile")
        tell("fit", 5, 5)

    *before, last = shown(True, happens).split("\x1b[2K")  # a line is cleared, and drawn anew
    assert any("fit" in line and "3/5" in line for line in before)
    assert "rounds" in last
    assert "1/8" in last
    assert "fit" not in last

import io

from rich.console import Console

from fed_gswgan.reporting.progress_bar import ProgressBar


def shown(terminal, report_of):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    bar = ProgressBar(console, finished_round=3, rounds=8)
    bar.update(report_of(4), total_bytes=2_500_000)
    bar.close()
    return console.file.getvalue()


def test_nothing_is_written_where_there_is_no_terminal(report_of):
    assert shown(False, report_of) == ""


def test_a_terminal_shows_round_epsilon_and_bytes(report_of):
    text = shown(True, report_of)
    for words in ("round 4/8", "epsilon 18", "2.5 MB"):
        assert words in text

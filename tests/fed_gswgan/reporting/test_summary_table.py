import io

import pytest
from rich.console import Console

from fed_gswgan.reporting.summary_table import METRICS, print_summary


@pytest.fixture
def summary():
    return {
        "runtime": "in-process",
        "dataset": "digits",
        "clients": 40,
        "cohort_size": 14,
        "rounds": 240,
        "prior": "strokes",
        "seconds": 12.4,
        "privacy": {
            "epsilon_max": 1234.5,
            "epsilon_median": 678.9,
            "epsilon_server_bound": 2000.25,
            "seeded_noise": False,
            "statement": ["epsilon = 1234 [replace-one].", "An epsilon this large."],
        },
        "bytes": {
            "downlink_total": 5_000_000,
            "uplink_total": 2_500_000,
            "model_exchange_ratio": 0.125,
            "by_client": {
                "one": {"downlink": 60_000, "uplink": 20_000},
                "two": {"downlink": 70_500, "uplink": 20_500},
            },
        },
        "nearest_training_image": {
            "samples": {"median": 4.25, "first_percentile": 2.5},
            "real images, held out": {"median": 4.0, "first_percentile": 2.25},
        },
        "references": {"the prior alone": {"label_agreement": 0.75, "frechet_distance": 6.25}},
        "metrics": {
            "downstream_accuracy": 0.8125,
            "label_agreement": 0.9,
            "inception_score": 7.25,
            "frechet_distance": 3.5,
        },
        "replies": {"received": 100, "failed": 2, "malformed": 1, "missing": 3},
        "notes": ["a note"],
    }


def printed(summary, folder):
    console = Console(file=io.StringIO(), width=300)
    print_summary(summary, folder, console)
    return console.file.getvalue()


def test_the_table_tells_what_was_reached_and_what_it_cost(summary, tmp_path):
    text = printed(summary, tmp_path)
    for words in (
        "digits: 240 rounds on in-process", "40, 14", "0.812", "7.25", "3.50", "1234.5", "678.9",
        "2000.2", "secure", "5.00 MB", "2.50 MB", "0.125", "91.0 kB", "the prior alone", "6.25",
        "median 4.25, first percentile 2.50", "real images, held out to the nearest",
        "training image (not private)", "of the busiest user, in all",
        "100 received, 2 failed, 1 malformed, 3 missing",
    ):  # fmt: skip
        assert words in text


def test_the_privacy_statement_is_printed_word_by_word(summary, tmp_path):
    text = printed(summary, tmp_path)
    assert "epsilon = 1234 [replace-one].\nAn epsilon this large.\n" in text


def test_seeded_noise_is_called_what_it_is(summary, tmp_path):
    summary["privacy"]["seeded_noise"] = True
    assert "seeded: protects nobody" in printed(summary, tmp_path)


def test_a_median_that_the_server_cannot_see_is_not_known(summary, tmp_path):
    summary["privacy"]["epsilon_median"] = None
    assert "not known" in printed(summary, tmp_path)


def test_a_metric_that_was_not_measured_is_none_and_without_any_there_is_no_table(
    summary, tmp_path
):
    (row,) = (n for n in printed(summary, tmp_path).splitlines() if "stroke frechet" in n)
    assert row.count("none") == 2
    summary["metrics"] = dict.fromkeys(METRICS)
    assert "label agreement" not in printed(summary, tmp_path)


def test_nothing_is_taken_for_markup_or_wrapped(summary, tmp_path):
    summary["privacy"]["statement"] = ["closed [/red] " + "long " * 100]
    assert summary["privacy"]["statement"][0] in printed(summary, tmp_path)


def test_the_files_are_named_with_the_last_picture(summary, tmp_path):
    (tmp_path / "samples").mkdir()
    for name in ("round-000020.png", "round-000240.png"):
        (tmp_path / "samples" / name).touch()
    for name in ("summary.json", "side-by-side.png", "report.html"):
        assert name not in printed(summary, tmp_path)
        (tmp_path / name).touch()
        assert f": {tmp_path / name}\n" in printed(summary, tmp_path)
    text = printed(summary, tmp_path)
    assert "round-000240.png" in text
    assert "round-000020.png" not in text
    assert "tensorboard --logdir" in text
    assert "a note" in text

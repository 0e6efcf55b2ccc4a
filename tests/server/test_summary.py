"""What summary.json says of whole small runs."""

import json
import math

import pytest

from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent, local_epsilon

EVENT = SanitizedGradientEvent(samples=8, clipping="sample", clipping_bound=1.0, noise_stddev=2.14)


def test_the_summary_holds_every_key_it_promises(small_run):
    summary = json.loads((small_run(cohort_size=4, rounds=2) / "summary.json").read_text())

    assert {"runtime", "dataset", "clients", "cohort_size", "rounds", "seconds"} <= set(summary)
    assert {
        "trust_model", "neighboring_relation", "unit", "delta", "noise_stddev", "clipping",
        "clipping_bound", "participations_max", "epsilon_max", "epsilon_median", "seeded_noise",
    } <= set(summary["privacy"])  # fmt: skip
    assert {
        "downlink_total", "uplink_total", "uplink_per_reply", "downlink_per_request",
        "model_exchange_ratio", "by_client",
    } <= set(summary["bytes"])  # fmt: skip
    assert {"received", "failed", "malformed"} <= set(summary["replies"])


def test_a_run_that_is_not_evaluated_has_metrics_of_null(small_run):
    summary = json.loads((small_run(rounds=1, evaluation_samples=0) / "summary.json").read_text())

    assert summary["metrics"] == dict.fromkeys([
        "downstream_accuracy", "label_agreement", "inception_score", "frechet_distance",
    ])  # fmt: skip


def test_the_bytes_of_all_clients_are_those_of_the_run(small_run):
    summary = json.loads((small_run(cohort_size=4, rounds=2) / "summary.json").read_text())
    by_client = summary["bytes"]["by_client"]

    assert list(by_client) == [f"client-0000{number}" for number in range(4)]
    for direction in ("downlink", "uplink"):
        total = sum(client[direction] for client in by_client.values())
        assert total == summary["bytes"][f"{direction}_total"]


def test_the_summarys_epsilon_is_the_exact_gaussians(small_run):
    privacy = json.loads((small_run(cohort_size=3, rounds=4) / "summary.json").read_text())[
        "privacy"
    ]

    expected = local_epsilon(
        EVENT, privacy["participations_max"], NeighboringRelation.REPLACE_ONE, 1e-5
    )
    assert privacy["epsilon_max"] == pytest.approx(expected, rel=1e-12)
    assert privacy["mu"] == pytest.approx(2 * math.sqrt(8 * privacy["participations_max"]) / 2.14)
    assert privacy["epsilon_median"] <= privacy["epsilon_max"] <= privacy["epsilon_server_bound"]

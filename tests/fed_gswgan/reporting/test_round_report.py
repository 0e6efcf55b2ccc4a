import json
import math
from dataclasses import replace

import pytest


def test_a_report_is_plain_json_values_by_name(report_of):
    record = report_of(3).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["server_round"] == 3
    assert record["epsilon_server_bound"] == 13.5


def test_every_client_that_was_asked_is_counted_once(report_of):
    report = report_of(1)
    assert report.received + report.failed + report.malformed + report.missing == report.asked


@pytest.mark.parametrize("norm", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_null_and_nothing_else_changes(report_of, norm):
    report = replace(report_of(1), combined_gradient_norm=norm, generator_gradient_norm=norm)
    missing = {"combined_gradient_norm": None, "generator_gradient_norm": None}
    assert report.to_dict() == report_of(1).to_dict() | missing
    json.dumps(report.to_dict(), allow_nan=False)

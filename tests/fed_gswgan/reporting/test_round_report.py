import json


def test_a_report_is_plain_json_values_by_name(report_of):
    record = report_of(3).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["server_round"] == 3
    assert record["epsilon_server_bound"] == 13.5


def test_every_client_that_was_asked_is_counted_once(report_of):
    report = report_of(1)
    assert report.received + report.failed + report.malformed + report.missing == report.asked

import pytest

from fed_gswgan.reporting.round_log import RoundReport


@pytest.fixture
def report_of():
    """Return a function (server_round) -> that round's report."""

    def report(server_round: int) -> RoundReport:
        return RoundReport(
            server_round=server_round,
            asked=10,
            population=20,
            left_out=0,
            received=6,
            failed=1,
            malformed=2,
            missing=1,
            stepped=True,
            downlink_bytes=2000,
            uplink_bytes=1000,
            bytes_by_client={"a": [1500, 1000], "b": [1500, 0]},
            epsilon_server_bound=4.5 * server_round,
            metrics={"combined_gradient_norm": 0.25, "generator_gradient_norm": 0.5},
            waited_seconds=0.25,
            round_seconds=1.5,
        )

    return report

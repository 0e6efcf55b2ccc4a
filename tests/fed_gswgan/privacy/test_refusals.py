import pytest

from fed_gswgan.privacy import refusals
from fed_gswgan.privacy.refusals import BudgetExhausted, LedgerUnavailable, Refusal
from fed_gswgan.wire.message_types import CLIENT_FAILED

REFUSALS = [
    refusal
    for refusal in vars(refusals).values()
    if isinstance(refusal, type) and issubclass(refusal, Refusal) and refusal is not Refusal
]


def test_a_device_refuses_for_these_reasons_and_no_other():
    assert {refusal("why").name for refusal in REFUSALS} == {
        "BUDGET_EXHAUSTED",
        "LEDGER_LOCKED",
        "LEDGER_UNAVAILABLE",
        "MALFORMED_INPUT",
        "MIN_SEPARATION",
        "REPLAY",
        "REQUEST_EXCEEDS_POLICY",
        "RNG_UNAVAILABLE",
        "SANITIZER_SELFTEST_FAILED",
        "TOO_MANY_PARTICIPATIONS",
    }


def test_every_reason_has_a_code_of_its_own_and_none_is_that_of_a_failure():
    codes = [refusal.code for refusal in (Refusal, *REFUSALS)]
    assert len({*codes, CLIENT_FAILED}) == len(codes) + 1


@pytest.mark.parametrize("refusal", REFUSALS)
def test_only_a_ledger_that_cannot_be_read_counts_as_exhausted_too(refusal):
    expected = refusal in (BudgetExhausted, LedgerUnavailable)
    assert issubclass(refusal, BudgetExhausted) == expected

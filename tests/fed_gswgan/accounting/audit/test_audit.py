import math

import pytest

from fed_gswgan.accounting.audit import CHECKS, audit, run_check, shipped, try_case
from fed_gswgan.accounting.audit_cases import worst_cases
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.noise_source import SecureNoise
from tests.fed_gswgan.accounting.audit import defective_sanitizers as sanitizers

REPEATS = 800
CASES = {case.title: case for case in worst_cases()}
FALSE_ALARM = 0.001 / (len(CHECKS) + len(CASES))

ROW, ROWS = "replace-one, sample, B=1", "replace-one, sample, B=32"
MESSAGE, ZEROED = "replace-one, message, B=32", "zero-out, sample, B=32"
CLIPPED = "clip: norm within the bound"
VARIANCE = "noise: variance"

# What refutes each of them.
REFUTED_BY = [
    (sanitizers.HalfTheNoise, f"all rows at the bound ({ROW})"),
    (sanitizers.HalfTheNoise, VARIANCE),
    (sanitizers.NoiseWithoutTheBound, f"all rows at the bound ({ROWS})"),
    (sanitizers.NoiseWithoutTheBound, VARIANCE),
    (sanitizers.NoNoiseOnZeros, f"all rows at the bound against zero ({ZEROED})"),
    (sanitizers.NoNoiseOnZeros, VARIANCE),
    (sanitizers.NoClip, f"all rows 10^2 times the bound ({ROW})"),
    (sanitizers.NoClip, CLIPPED),
    (sanitizers.ClipAfterNoise, f"all rows 10^6 times the bound ({ROWS})"),
    (sanitizers.ClipAfterNoise, VARIANCE),
    (sanitizers.ClipOfEachPixel, f"pixels of alternating signs ({ROW})"),
    (sanitizers.ClipOfEachPixel, CLIPPED),
    (sanitizers.OneCoefficientFromTheMeanNorm, f"one huge row among small ones ({ROWS})"),
    (sanitizers.OneCoefficientFromTheMeanNorm, f"one huge row against zero ({ZEROED})"),
    (sanitizers.OneCoefficientFromTheMeanNorm, CLIPPED),
    (sanitizers.CoefficientFromTheSumOfRows, f"huge rows that cancel out ({ROWS})"),
    (sanitizers.CoefficientFromTheSumOfRows, CLIPPED),
    (sanitizers.RowsClippedInsteadOfTheMessage, f"all rows at the bound ({MESSAGE})"),
    (sanitizers.RowsClippedInsteadOfTheMessage, CLIPPED),
    (sanitizers.NoClipWhereTheSquareOverflows, f"all rows 10^30 times the bound ({ROW})"),
    (sanitizers.NoClipWhereTheSquareOverflows, CLIPPED),
    (sanitizers.OneNoiseForAllRows, f"rows of opposite signs ({ROWS})"),
    (sanitizers.OneNoiseForAllRows, "noise: rows are independent"),
    (sanitizers.OneNoiseValueARow, f"pixels of alternating signs ({ROWS})"),
    (sanitizers.OneNoiseValueARow, "noise: pixels are independent"),
    (sanitizers.NoiseReusedInTheNextMessage, f"two messages of opposite signs ({ROW})"),
    (sanitizers.NoiseReusedInTheNextMessage, "noise: messages are independent"),
    (sanitizers.NoiseFromAConstantSeed, f"all rows at the bound ({ROW})"),
    (sanitizers.NoiseFromAConstantSeed, "noise: messages are independent"),
    (sanitizers.NoiseSharedByForks, "noise: differs between processes"),
    (sanitizers.SinglePrecisionNoise, f"which float32 numbers occur ({ZEROED})"),
    (sanitizers.NoFiniteGuard, f"NaN in one pixel against a huge row ({ROWS})"),
    (sanitizers.NoFiniteGuard, f"+Inf in one pixel against a huge row ({ROWS})"),
    (sanitizers.FiniteGuardAfterTheNoise, f"-Inf in one pixel against a huge row ({ROWS})"),
    (sanitizers.NormOfZeroDivides, f"all rows at the bound against zero ({ZEROED})"),
    (sanitizers.RaisesOnNaN, f"NaN in one pixel against a huge row ({ROW})"),
    (sanitizers.LeavesOutRowsThatAreNotFinite, f"+Inf in one pixel against a huge row ({ROWS})"),
    (sanitizers.KeepsDoublePrecision, f"all rows at the bound ({ROW})"),
]
DEFECTS = sorted({defect for defect, _ in REFUTED_BY}, key=lambda defect: defect.__name__)


def attempt(sanitizer, title):
    if title in CHECKS:
        return run_check(title, sanitizer, FALSE_ALARM)
    return try_case(CASES[title], sanitizer, REPEATS, FALSE_ALARM)


def title_of(value):
    return getattr(value, "__name__", value)


def test_every_defect_of_the_module_is_tried():
    defined = {item for item in vars(sanitizers).values() if isinstance(item, type)}
    subclasses = {item for item in defined if issubclass(item, sanitizers.Sound)}
    assert set(DEFECTS) == subclasses - {sanitizers.Sound}


@pytest.mark.parametrize(("defect", "title"), REFUTED_BY, ids=title_of)
def test_defect_is_refuted_where_it_shows(defect, title):
    assert attempt(defect(), title).refuted


@pytest.mark.parametrize("defect", DEFECTS, ids=title_of)
def test_audit_as_a_whole_refutes_every_defect(defect):
    assert audit(defect(), repeats=REPEATS, until_refuted=True).violations


def test_shipped_sanitizer_is_not_refuted():
    report = audit(shipped(sanitizers.SeededByProcess()), repeats=2000)
    assert report.violations == ()
    assert len(report.checks) == len(CHECKS)
    assert len(report.cases) == len(CASES)


def test_shipped_sanitizer_with_the_noise_of_a_device_is_not_refuted():
    assert audit(shipped(SecureNoise()), repeats=500).violations == ()


def test_a_batch_accounted_as_one_sample_is_refuted_by_rows_that_agree():
    case, sound = CASES[f"all rows at the bound ({ROWS})"], sanitizers.Sound()
    result = try_case(case, sound, 2000, FALSE_ALARM, claimed_mu=sanitizers.accounted_as_one_sample)
    assert result.claimed_mu == pytest.approx(1 / 1.07 / math.sqrt(32))
    assert result.refuted
    assert not try_case(case, sanitizers.Sound(), 2000, FALSE_ALARM).refuted


def test_a_clip_after_the_noise_is_not_seen_by_gradients_within_the_bound():
    # Why there are canaries far outside of it.
    assert not attempt(sanitizers.ClipAfterNoise(), f"all rows at the bound ({ROW})").refuted


def test_noise_shared_by_rows_is_not_seen_by_rows_that_agree():
    assert not attempt(sanitizers.OneNoiseForAllRows(), f"all rows at the bound ({ROWS})").refuted


def test_two_messages_are_claimed_the_root_of_two():
    result = attempt(sanitizers.Sound(), f"two messages of opposite signs ({ROW})")
    assert result.claimed_mu == pytest.approx(math.sqrt(2) / 1.07)


def test_epsilon_is_read_from_the_bound_on_mu():
    result = attempt(sanitizers.NoClip(), f"all rows 10^6 times the bound ({ROW})")
    assert result.mu_lower_bound > 3
    assert result.epsilon_lower_bound == gaussian_epsilon(result.mu_lower_bound, 1e-5)


def test_a_fault_is_named_and_tells_the_worlds_apart():
    result = attempt(sanitizers.RaisesOnNaN(), f"NaN in one pixel against a huge row ({ROW})")
    assert result.fault == "ValueError: a gradient is not a number"
    assert result.mu_lower_bound > 3


def test_progress_is_told_case_by_case():
    told = []
    audit(sanitizers.Sound(), repeats=2, on_progress=lambda *counts: told.append(counts))
    assert told == [(done, len(CASES)) for done in range(1, len(CASES) + 1)]


@pytest.mark.parametrize("setting", [{"repeats": 1}, {"confidence": 1.0}, {"delta": 0.0}])
def test_settings_out_of_range_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"^{name}="):
        audit(sanitizers.Sound(), **{"repeats": 10, **setting})

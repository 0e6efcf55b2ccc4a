import math

import numpy as np
import pytest
from scipy.special import ndtri

from fed_gswgan.accounting.audit import (
    CHECKS,
    CONFIDENCE,
    Subject,
    audit,
    mu_lower_bound,
    run_check,
    shipped,
    try_case,
)
from fed_gswgan.accounting.audit_cases import worst_cases
from tests.fed_gswgan.accounting import defective_sanitizers as sanitizers

REPEATS = 800
FEW, MANY = 2**20, 2**22  # draws of noise; most defects show in few
CASES = {case.title: case for case in worst_cases()}
FALSE_ALARM = (1 - CONFIDENCE) / (len(CHECKS) + len(CASES))

ROW, ROWS = "replace-one, sample, B=1", "replace-one, sample, B=32"
MESSAGE, ZEROED = "replace-one, message, B=32", "zero-out, sample, B=32"
CLIPPED = "clip: norm within the bound"
VARIANCE = "noise: variance"
FIT = "noise: goodness of fit"
REPEATED = "noise: no draws come twice"
LAGGED = "noise: lagged draws are independent"
LOCAL, SHARE = "law beside data: local, sample", "law beside data: secure-aggregation, sample"
CENTRAL = "law beside data: central, message"
FRACTIONS = "law beside data: a deviation is one step"

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
    (sanitizers.NoClipBeyondTheThirtySecondRow, CLIPPED),
    (sanitizers.NoiseThatRepeatsAfterThreeMillionDraws, REPEATED),
    (sanitizers.NoiseThatRepeatsAfterThreeMillionDraws, LAGGED),
    (sanitizers.BoundedNoiseOfTheRightVariance, FIT),
    (sanitizers.BoundedNoiseOfTheRightVariance, "noise: kurtosis"),
    (sanitizers.GaussianCutAtThreeAndAHalfDeviations, FIT),
    (sanitizers.DataInTheLastBitOfTheMantissa, LOCAL),
    (sanitizers.DataInTheLastBitOfTheMantissa, f"all rows at the bound ({ROW})"),
    (sanitizers.DataInTheLastBitOfTheStep, LOCAL),
    (sanitizers.DataInTheLastBitOfTheStep, "noise: last bits"),
    (sanitizers.RoundedTowardsTheData, SHARE),
    (sanitizers.RoundedTowardsTheData, FRACTIONS),
    (sanitizers.GridShiftedByTheData, LOCAL),
    (sanitizers.LessNoiseOnEveryHundredthRow, VARIANCE),
    (sanitizers.NoiseCorrelatedWithAnEarlierDraw, LAGGED),
    (sanitizers.NoiseCorrelatedWithAnEarlierDraw, "noise: pixels are independent"),
    (sanitizers.NoiseFromATableOfDraws, FIT),
    (sanitizers.NoiseOfASizeThatFollowsTheData, LOCAL),
    (sanitizers.ShareOfNoiseDividedTwice, SHARE),
    (sanitizers.NoNoiseUnderCentralTrust, CENTRAL),
    (sanitizers.NoNoiseOnTheLastNumber, LOCAL),
]
DEFECTS = sorted({defect for defect, _ in REFUTED_BY}, key=lambda defect: defect.__name__)


def draws_for(sanitizer):
    return MANY if isinstance(sanitizer, sanitizers.NoiseThatRepeatsAfterThreeMillionDraws) else FEW


def attempt(sanitizer, title):
    if title in CHECKS:
        return run_check(title, Subject(sanitizer, draws_for(sanitizer)), FALSE_ALARM)
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
    planted = defect()
    found = audit(planted, repeats=REPEATS, draws=draws_for(planted), until_refuted=True)
    assert found.violations


def test_shipped_sanitizer_is_not_refuted():
    report = audit(shipped(sanitizers.SeededByProcess()), repeats=400, draws=MANY)
    assert report.violations == ()
    assert len(report.checks) == len(CHECKS)
    assert len(report.cases) == len(CASES)


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


def test_a_fault_is_named_and_tells_the_worlds_apart():
    result = attempt(sanitizers.RaisesOnNaN(), f"NaN in one pixel against a huge row ({ROW})")
    assert result.fault == "ValueError: a gradient is not a number"
    assert result.mu_lower_bound > 3


@pytest.mark.parametrize(
    "setting", [{"repeats": 1}, {"draws": 0}, {"confidence": 1.0}, {"delta": 0.0}]
)
def test_settings_out_of_range_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"^{name}="):
        audit(sanitizers.Sound(), **{"repeats": 10, **setting})


# -- the bound on mu


def seeded(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


def gaussian_bounds(mu, count, repeats, false_alarm):
    randomness = seeded()
    return np.array(
        [
            mu_lower_bound(
                mu + randomness.standard_normal(count),
                randomness.standard_normal(count),
                false_alarm,
            )
            for _ in range(repeats)
        ]
    )


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.935, 2.0, 5.287])
def test_bound_lies_above_the_truth_no_more_often_than_allowed(mu):
    assert (gaussian_bounds(mu, 1000, 400, false_alarm=1e-3) > mu).sum() == 0
    assert (gaussian_bounds(mu, 200, 1000, false_alarm=0.1) > mu).mean() < 0.1


# Medians of 40 repeats at 99.9 %, from an independent computation.
@pytest.mark.parametrize(
    ("mu", "thousand", "ten_thousand"),
    [(0.5, 0.10, 0.38), (0.935, 0.55, 0.80), (2.0, 1.50, 1.84), (5.287, 3.95, 4.80)],
)
def test_power_grows_with_the_number_of_scores(mu, thousand, ten_thousand):
    found = [np.median(gaussian_bounds(mu, count, 40, 1e-3)) for count in (1000, 10_000)]
    assert found == pytest.approx([thousand, ten_thousand], abs=0.06)


def test_worlds_that_never_mix_are_bounded_by_their_number_alone():
    # Ten of each are left to judge by: a rate p shows no error in ten with (1 - p)^10 = 0.005.
    largest_rate = 1 - 0.005**0.1
    bound = mu_lower_bound(np.full(20, 5.0), np.zeros(20), false_alarm=0.01)
    assert bound == pytest.approx(-2 * ndtri(largest_rate))
    assert mu_lower_bound(np.full(20, np.inf), np.zeros(20), false_alarm=0.01) == bound


@pytest.mark.parametrize(("present", "changed"), [(0.0, 0.0), (np.inf, np.inf), (0.0, 5.0)])
def test_worlds_that_look_alike_or_reversed_have_no_bound(present, changed):
    assert mu_lower_bound(np.full(1000, present), np.full(1000, changed), 1e-3) == 0.0


def test_coin_flips_reach_the_mu_of_their_error_rates():
    # Right with probability 0.8 in both worlds: mu = 2 Phi^-1(0.8) = 1.683.
    randomness = seeded(3)
    present = (randomness.random(100_000) < 0.8).astype(float)
    changed = (randomness.random(100_000) < 0.2).astype(float)
    assert 1.62 < mu_lower_bound(present, changed, 1e-3) < 1.6833


def test_what_judges_does_not_choose():
    """A threshold that only the second half would suggest is not used."""
    first = np.zeros(500)
    present, changed = np.append(first, np.full(500, 2.0)), np.append(first, np.full(500, 1.0))
    assert mu_lower_bound(present, changed, 1e-3) == 0.0


@pytest.mark.parametrize(("count", "false_alarm"), [(1, 1e-3), (10, 0.0), (10, 1.0)])
def test_too_few_scores_and_a_certain_alarm_are_refused(count, false_alarm):
    with pytest.raises(ValueError, match=r"scores=1|false-alarm="):
        mu_lower_bound(np.zeros(count), np.zeros(count), false_alarm)

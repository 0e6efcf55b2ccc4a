import pytest

from fed_gswgan.accounting.report import reachable
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
EVENT = SanitizedGradientEvent(samples=32, clipping="sample", clipping_bound=1.0, noise_stddev=2.14)


# Computed elsewhere, of 1000 rounds: (population, cohort, relation, replies, local, local message,
# secure aggregation, central).
@pytest.mark.parametrize(
    ("population", "cohort", "relation", "replies", "epsilons"),
    [
        (100_000, 100, REPLACE, 1, (37.1, 4.29, 2.4, 0.0699)),
        (100_000, 100, ZERO, 1, (14.8, 1.97, 1.12, 0.0263)),
        (100_000, 1000, REPLACE, 10, (214, 17.1, 2.4, 0.2)),
        (3400, 100, REPLACE, 30, (524, 31, 15.1, 2.13)),
        (3400, 100, ZERO, 30, (157, 12, 6.23, 0.764)),
        (870, 10, REPLACE, 12, (226, 15.1, 37.7, 6.94)),
    ],
)
def test_known_values(population, cohort, relation, replies, epsilons):
    found = reachable(population, cohort, 1000, EVENT, relation)
    assert found.participations == replies
    assert found.delta == pytest.approx(population**-1.1)
    assert (
        found.local_sample,
        found.local_message,
        found.secure_aggregation,
        found.central,
    ) == pytest.approx(epsilons, rel=0.013)


def test_a_population_below_the_cohort_takes_part_as_a_whole():
    found = reachable(50, 100, 7, EVENT, REPLACE)
    assert (found.cohort, found.participations) == (50, 7)
    # Everyone in every round: a sum with the noise of 50 is what 50 honest clients would add.
    assert found.central < found.secure_aggregation < found.local_sample


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1, 1, 1), "population=1"), ((9, 0, 1), "cohort=0"), ((9, 1, 0), "rounds=0")],
)
def test_nonsense_is_named(arguments, said):
    with pytest.raises(ValueError, match=f"^{said} must"):
        reachable(*arguments, EVENT, REPLACE)

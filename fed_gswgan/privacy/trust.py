"""Who is trusted with what, and which readings of an epsilon go together."""

from collections.abc import Mapping
from enum import StrEnum

from fed_gswgan.privacy.neighboring import NeighboringRelation

REPLACE_ONE, ZERO_OUT = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT


class TrustModel(StrEnum):
    """Who is trusted."""

    LOCAL = "local"  # nobody but the device
    SECURE_AGGREGATION = "secure-aggregation"  # the protocol, and some of the other clients
    CENTRAL = "central"  # the server
    PAPER = "paper"  # the published formula, for comparison only


class SamplingMethod(StrEnum):
    """How a server that is trusted selects users in a round."""

    POISSON = "poisson"  # each by its own secret coin
    FIXED_SIZE = "fixed-size"  # a secret cohort of fixed size
    REVEALED = "revealed"  # at random, and known afterwards


class CriticState(StrEnum):
    """What a critic starts a participation from."""

    SNAPSHOT = "snapshot"  # the same critic each time, whatever happened before
    PERSISTENT = "persistent"  # what its last participation left


PERMITTED: Mapping[
    TrustModel, tuple[tuple[SamplingMethod | None, tuple[NeighboringRelation, ...]], ...]
] = {
    TrustModel.LOCAL: ((None, (REPLACE_ONE, ZERO_OUT)),),
    TrustModel.SECURE_AGGREGATION: ((None, (REPLACE_ONE, ZERO_OUT)),),
    TrustModel.CENTRAL: (
        (SamplingMethod.POISSON, (ZERO_OUT,)),
        (SamplingMethod.FIXED_SIZE, (REPLACE_ONE,)),
        (SamplingMethod.REVEALED, (REPLACE_ONE, ZERO_OUT)),
    ),
    TrustModel.PAPER: ((SamplingMethod.FIXED_SIZE, (REPLACE_ONE,)),),
}

_BELIEFS = {
    TrustModel.LOCAL: (
        "That the device clips, adds its noise and counts its replies. Holds against everyone who "
        "sees them, the server and all other clients included."
    ),
    TrustModel.SECURE_AGGREGATION: (
        "That the protocol shows nothing but sums, and that in every sum at least this many honest "
        "clients, the user's own included, add their noise and stay. Holds against the server and "
        "the other clients; where the belief fails, epsilon_alone is what is left."
    ),
    TrustModel.CENTRAL: (
        "That the server adds this noise to every sum and shows nothing else, and that it selects "
        "users at random as stated. Holds against those who see what it releases, and not against "
        "the server."
    ),
    TrustModel.PAPER: (
        "This is no guarantee: the published formula counts the rows of a reply as if each were "
        "sampled by itself, though all of them are the same client's. Read true_epsilon instead, "
        "which asks for what central trust does."
    ),
}
_SECRET_SELECTION = (
    " And that the selection stays secret, and that every critic starts each participation from "
    "the same snapshot (critic-state=snapshot): a critic that remembers its participations "
    "betrays the selection, and voids this figure."
)


def must_be_believed(trust: TrustModel, sampling: SamplingMethod | None) -> str:
    """Return what has to be true for an epsilon to hold, and against whom it then does."""
    secret = selection_is_secret(trust, sampling)
    return _BELIEFS[trust] + (_SECRET_SELECTION if secret else "")


def selection_is_secret(trust: TrustModel, sampling: SamplingMethod | None) -> bool:
    """Whether epsilon is amplified by a selection that nobody learns of."""
    return trust is TrustModel.CENTRAL and sampling is not SamplingMethod.REVEALED


def check_combination(
    trust: TrustModel,
    sampling: SamplingMethod | None,
    relation: NeighboringRelation,
    critic_state: CriticState | None,
) -> None:
    """Refuse what has no proven epsilon.

    Args:
        trust: who is trusted.
        sampling: None where it plays no part.
        relation: what neighbouring means.
        critic_state: None: not said.

    Raises:
        ValueError: it names both settings and what is permitted.
    """
    relations = dict(PERMITTED[trust]).get(sampling, ())
    if relation not in relations:
        raise ValueError(
            f"sampling={sampling} does not go with neighboring={relation} under trust={trust}; "
            f"permitted: {_permitted(trust)}"
        )
    if selection_is_secret(trust, sampling) and critic_state is CriticState.PERSISTENT:
        raise ValueError(
            f"critic-state=persistent does not go with sampling={sampling}: critics that remember "
            "their participations betray a secret selection; use sampling=revealed, or "
            "critic-state=snapshot"
        )


def _permitted(trust: TrustModel) -> str:
    return ", ".join(
        f"{sampling or 'no sampling'} with {' or '.join(relations)}"
        for sampling, relations in PERMITTED[trust]
    )

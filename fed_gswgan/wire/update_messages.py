"""What server and client say to one another where critics are averaged (FedAvg-GAN).

P and Q: numbers in the state vectors of generator and critic.
"""

from dataclasses import asdict, dataclass

import numpy as np

from fed_gswgan.privacy.clipped_update import ClippedUpdate, update_event
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import ReleaseKey
from fed_gswgan.wire.request_hash import request_hash


@dataclass(frozen=True, kw_only=True)
class UpdateRequest:
    """What the server asks of one client in one round; the same to the whole cohort.

    Attributes:
        experiment_id: of the experiment; a resumed run keeps it.
        server_round: from 1.
        generator_P: float32, draws the samples that the critic is trained against.
        critic_Q: float32, what training starts from.
        clipping_bound: C of the update asked for.
        noise_stddev: that the server promises to add to the sum, in units of C.
    """

    experiment_id: str
    server_round: int
    generator_P: np.ndarray
    critic_Q: np.ndarray
    clipping_bound: float
    noise_stddev: float

    def event(self) -> SanitizedGradientEvent:
        """Return the release that is asked for; ValueError for a number out of range."""
        return update_event(self.clipping_bound, self.noise_stddev)

    def key(self) -> ReleaseKey:
        """Return what makes the release that is asked for the same as another."""
        return ReleaseKey(self.experiment_id, self.server_round, self.hash())

    def hash(self) -> str:
        """Return a hash of all that decides the reply."""
        asked = (self.experiment_id, self.server_round, asdict(self.event()))
        return request_hash(asked, (self.generator_P, self.critic_Q))


@dataclass(frozen=True, kw_only=True)
class UpdateReply:
    """All that leaves a client in a round.

    Attributes:
        server_round: of the request.
        update: of the critic, what training changed.
    """

    server_round: int
    update: ClippedUpdate

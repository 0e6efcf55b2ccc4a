"""What server and client say to one another, free of any transport.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

from dataclasses import asdict, dataclass

import numpy as np

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import ReleaseKey
from fed_gswgan.privacy.sanitizer import SanitizedGradient
from fed_gswgan.release_basis import release_shape
from fed_gswgan.wire.request_hash import request_hash


class MalformedReplyError(ValueError):
    """A reply that breaks the schema; counted and dropped."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What the server asks of one client in one round; the same to the whole cohort.

    Attributes:
        experiment_id: of the experiment; a resumed run keeps it.
        server_round: from 1.
        checkpoint_round: the newest round the server can fall back to; the client keeps the
            critic it had then.
        samples_BCHW: float32 in [0, 1]; the reply holds one gradient for each.
        labels_B: int64, the class each sample was generated for.
        critic_samples_NBCHW: float32 in [0, 1], further samples for the critic's steps only; with
            N = 0 the answered samples serve.
        critic_labels_NB: int64.
        clipping: of the reply asked for; ``sample`` or ``message``.
        clipping_bound: C of the reply asked for.
        noise_stddev: of the reply asked for, in units of C.
        dct_frequencies: of each axis, that the reply asked for is written in; 0: in pixels.
        uplink_codec: the reply's numbers are written in; what is released does not depend on it.
    """

    experiment_id: str
    server_round: int
    checkpoint_round: int
    samples_BCHW: np.ndarray
    labels_B: np.ndarray
    critic_samples_NBCHW: np.ndarray
    critic_labels_NB: np.ndarray
    clipping: str
    clipping_bound: float
    noise_stddev: float
    dct_frequencies: int = 0
    uplink_codec: str = "float32"

    def event(self) -> SanitizedGradientEvent:
        """Return the release that is asked for; ValueError for a number out of range."""
        return SanitizedGradientEvent(
            samples=len(self.samples_BCHW),
            clipping=self.clipping,
            clipping_bound=self.clipping_bound,
            noise_stddev=self.noise_stddev,
        )

    def reply_shape(self) -> tuple[int, ...]:
        """Return the shape of the values that are released."""
        return release_shape(self.samples_BCHW.shape, self.dct_frequencies)

    def critic_batches(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (samples_NBCHW, labels_NB) for the critic's steps, N >= 1."""
        if len(self.critic_samples_NBCHW) > 0:
            return self.critic_samples_NBCHW, self.critic_labels_NB
        return self.samples_BCHW[None], self.labels_B[None]

    def key(self) -> ReleaseKey:
        """Return what makes the release that is asked for the same as another."""
        return ReleaseKey(self.experiment_id, self.server_round, self.hash())

    def hash(self) -> str:
        """Return a hash of all that decides the reply."""
        return request_hash(
            (self.experiment_id, self.server_round, asdict(self.event()), self.dct_frequencies),
            (
                self.samples_BCHW,
                self.labels_B,
                self.critic_samples_NBCHW,
                self.critic_labels_NB,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """All that leaves a client in a round.

    Attributes:
        server_round: of the request.
        gradient: a row for each answered sample, with the event that says what it cost.
    """

    server_round: int
    gradient: SanitizedGradient

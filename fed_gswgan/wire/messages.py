"""What server and client say to one another, free of any transport.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

TRAIN = "train.gswgan"
REGISTER = "query.register"

# Codes of the error messages a client may answer with; their text never depends on data.
REFUSED = 1001  # the ledger or the policy said no
MALFORMED_REQUEST = 1002
CLIENT_FAILED = 1003


class MalformedRequestError(ValueError):
    """A request that breaks the schema; refused before any data is read."""


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
    """

    experiment_id: str
    server_round: int
    checkpoint_round: int
    samples_BCHW: np.ndarray
    labels_B: np.ndarray
    critic_samples_NBCHW: np.ndarray
    critic_labels_NB: np.ndarray

    def critic_batches(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (samples_NBCHW, labels_NB) for the critic's steps, N >= 1."""
        if len(self.critic_samples_NBCHW) > 0:
            return self.critic_samples_NBCHW, self.critic_labels_NB
        return self.samples_BCHW[None], self.labels_B[None]

    def hash(self) -> str:
        """Return a hash of all that decides the reply, part of the release's key."""
        digest = hashlib.sha256(f"{self.experiment_id}\x1f{self.server_round}".encode())
        for array in (
            self.samples_BCHW,
            self.labels_B,
            self.critic_samples_NBCHW,
            self.critic_labels_NB,
        ):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """All that leaves a client in a round.

    Attributes:
        server_round: of the request.
        gradient_BCHW: float32, finite: the sanitized gradient, a row for each answered sample.
    """

    server_round: int
    gradient_BCHW: np.ndarray

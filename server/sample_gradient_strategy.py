"""Federated GS-WGAN as a Flower Strategy: samples out, sanitized gradients in, a generator step.

The round itself is ``RoundStrategy.train_round``.

Shapes: B batch, C channels, H and W image.
"""

import logging
import math
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict

from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.privacy.sanitizer import release_event
from fed_gswgan.profiling import timed
from fed_gswgan.release_basis import release_shape, to_pixels
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.wire.record_codec import decode_reply, encode_request
from server.aggregation import combine
from server.reply_reading import Replies
from server.round_strategy import RoundStrategy, Step
from server.sample_requests import SampleRequests

logger = logging.getLogger(__name__)


class SampleGradientStrategy(RoundStrategy):
    """The cohort gets the same samples; the mean sanitized gradient moves the generator.

    Args:
        config: of the run.
        shared: the other arguments of ``RoundStrategy``.
    """

    message_type = TRAIN

    def __init__(self, *, config: Config, **shared: Any) -> None:
        event = release_event(config.cohort.batch_size, config.sanitizer)
        self.reply_shape = release_shape(
            (event.samples, *IMAGE_SHAPE), config.sanitizer.dct_frequencies
        )
        size = math.prod(self.reply_shape)
        super().__init__(config=config, event=event, reply_size=size, **shared)
        self.requests = SampleRequests(config, self.experiment_id, self.num_classes)

    def build_records(self, server_round: int) -> RecordDict:
        """Generate this round's samples and encode them."""
        with timed("generator"):
            request = self.requests.build(server_round, self.trainer, self.checkpoint_round())
        with timed("codec"):
            return encode_request(request, self.config.codec.downlink_codec)

    def decode(self, records: RecordDict, server_round: int) -> np.ndarray:
        """Return the sanitized gradient of a reply, float32, in the basis of the release."""
        codec = self.config.codec.uplink_codec
        reply = decode_reply(records, server_round, self.event, self.reply_shape, codec)
        return reply.gradient.values_BCHW

    def step_generator(self, server_round: int, replies: Replies) -> Step:
        """Combine the gradients and let the generator learn from them."""
        frequencies = self.config.sanitizer.dct_frequencies
        combined = to_pixels(combine(replies.values), IMAGE_SHAPE[-1], frequencies)
        gradient_BCHW = torch.from_numpy(combined)
        latents_BZ, labels_B = self.requests.inputs(server_round)
        randomness = self.seeds.generator("release-use", server_round)
        samples_BCHW = self.requests.answered_samples
        norm = self.trainer.learn(latents_BZ, labels_B, samples_BCHW, gradient_BCHW, randomness)
        return Step(True, float(gradient_BCHW.flatten(1).norm(dim=1).mean()), norm)

    def summary(self) -> None:
        """Log the settings that decide privacy."""
        sanitizer, cohort = self.config.sanitizer, self.config.cohort
        logger.info(
            "GS-WGAN: %d clients, cohort %d (%s), %d samples a reply, clipping %s to %g, noise %g",
            len(self.nodes), cohort.cohort_size, cohort.sampling_method, cohort.batch_size,
            sanitizer.clipping, sanitizer.clipping_bound, sanitizer.noise_stddev,
        )  # fmt: skip

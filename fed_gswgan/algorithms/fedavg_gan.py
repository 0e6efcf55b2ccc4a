"""FedAvg-GAN: models out, updates of the critic in, the critic moved by their mean.

The server sends its generator and its critic. Each client trains the critic on its images by SGD
and returns how far it moved. The server adds the mean update to the critic and trains the generator
against it.

Shapes: B batch, Z latent, P numbers in the critic's state, Q in the generator's.

Source: Augenstein et al., arXiv 1911.06679, algorithm 1; the loss is WGAN-GP's.
"""

from collections.abc import Mapping
from functools import cached_property, partial

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor, nn

from fed_gswgan.algorithms.base import (
    ClientView,
    Mean,
    Metrics,
    Query,
    ReleaseShape,
    Request,
    Sampler,
    Step,
    Update,
)
from fed_gswgan.critics.wgan_gp import CriticSettings, sample_gradient, train_critic
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import (
    GeneratorSettings,
    build_critic,
    build_generator,
    load_state_vector,
    to_state_vector,
)
from fed_gswgan.models.trainer import (
    GeneratorTrainer,
    draw_labels,
    draw_latents,
    from_tensors,
    sampler_of,
    to_tensors,
)
from fed_gswgan.priors.prior import PriorSettings, open_prior
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Count, Positive


class Settings(CriticSettings, GeneratorSettings, PriorSettings):
    """Keys of FedAvg-GAN, beside the shared ones."""

    batch_size: Count = 32
    """of every step, on clients and server"""
    generator_steps: Count = 6
    """of the server in a round"""
    server_learning_rate: Positive = 1.0
    """on the mean update of the critic"""

    @field_validator("critic", mode="before")
    @classmethod
    def _trained(cls, critic: object) -> object:
        """Take GS-WGAN's default, which a table with every key has, for this algorithm's own."""
        return "mlp" if critic == "cramer" else critic


def keeps_state(settings: Settings) -> bool:
    """Return False: a client starts from the critic it is sent."""
    return False


class Client:
    """Trains the critic it is sent, and returns by how much it moved."""

    def __init__(self, settings: Settings, spec: DataSpec) -> None:
        self._settings, self._spec = settings, spec

    @cached_property
    def _networks(self) -> tuple[nn.Module, nn.Module]:
        return (
            build_generator(self._settings, self._spec, seed=0),
            build_critic(self._settings, self._spec, seed=0),
        )

    def release(self, server_round: int) -> ReleaseShape:
        """Return one row, the critic's state vector, bounded as a whole."""
        return ReleaseShape(1, len(to_state_vector(self._networks[1])), bounded="message")

    def check(self, request: Request) -> None:
        """Require a generator and a critic of this size."""
        sizes = {
            name: len(to_state_vector(network))
            for name, network in zip(("generator", "critic"), self._networks, strict=True)
        }
        if request.tensors.keys() != sizes.keys() or request.scalars:
            raise ValueError("tensors must be generator and critic, and no scalars")
        for name, size in sizes.items():
            tensor = request.tensors[name]
            if tensor.shape != (size,) or tensor.dtype != np.float32:
                raise ValueError(
                    f"{name} is {tensor.dtype} of {tensor.shape}, must be of {(size,)}"
                )

    def update(self, request: Request, client: ClientView) -> Update:
        """Take the critic's steps against fresh samples; return the difference, float32 (1, P)."""
        generator, critic = self._networks
        load_state_vector(generator, request.tensors["generator"])
        load_state_vector(critic, request.tensors["critic"])
        before_P = to_state_vector(critic)
        settings, randomness = (
            self._settings,
            client.randomness("critic-update", request.server_round),
        )
        steps, size = settings.critic_steps, settings.batch_size
        latents = draw_latents(steps * size, settings.latent_dim, settings.latent_kind, randomness)
        labels = draw_labels(steps * size, self._spec.num_classes, randomness)
        with torch.no_grad():
            samples = generator.eval()(latents, labels)
        optimizer = torch.optim.SGD(critic.parameters(), lr=settings.critic_learning_rate)
        samples_KBCHW = samples.reshape(steps, size, *samples.shape[1:])
        labels_KB = labels.reshape(steps, size)
        train_critic(
            critic, optimizer, client.dataset, samples_KBCHW, labels_KB, settings, randomness
        )
        return Update((to_state_vector(critic) - before_P)[None])


class Server:
    """Holds the generator, and the critic that all clients share."""

    def __init__(self, settings: Settings, spec: DataSpec, seeds: SeedStream, rounds: int) -> None:
        self._settings, self._spec, self._seeds, self._rounds = settings, spec, seeds, rounds
        generator = build_generator(settings, spec, seeds.torch_seed("generator-weights"))
        self.critic = build_critic(settings, spec, seeds.torch_seed("critic-weights")).eval()
        if prior := open_prior(settings, spec):
            prior.start(generator, "generator", settings)
            prior.start(self.critic, "critic", settings)
        self.trainer = GeneratorTrainer(generator, settings)

    def request(self, server_round: int) -> Query:
        """Return generator and critic as they are."""
        return Query(
            tensors={
                "generator": to_state_vector(self.trainer.generator),
                "critic": to_state_vector(self.critic),
            }
        )

    def step(self, server_round: int, query: Query, mean: Mean) -> Step:
        """Move the critic by the mean update, then train the generator against it."""
        self.trainer.set_learning_rate(server_round / self._rounds)
        mean_P = mean.update_RN[0].astype(np.float32)
        rate = self._settings.server_learning_rate
        load_state_vector(self.critic, to_state_vector(self.critic) + rate * mean_P)
        norm = self.trainer.follow(
            partial(sample_gradient, self.critic),
            self._settings.generator_steps,
            self._settings.batch_size,
            self._spec.num_classes,
            self._seeds.generator("generator-training", server_round),
        )
        update_norm = float(np.linalg.norm(mean_P))
        return Step({"combined_gradient_norm": update_norm, "generator_gradient_norm": norm})

    def finish(self) -> Metrics:
        """Do nothing: every update was used in its round."""
        return {}

    def sampler(self) -> Sampler:
        """Draw from the generator's moving average."""
        return sampler_of(self.trainer.ema_generator, self._settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Return generator, moving average, optimizer and critic."""
        return self.trainer.state_dict() | to_tensors({"critic": self.critic}, {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``."""
        self.trainer.load_state_dict(state)
        from_tensors(state, {"critic": self.critic}, {})

"""Plug-ins that tests name as ``tests.plug_ins:Class``: a data set, an algorithm, a critic."""

import os
import signal
from pathlib import Path

import numpy as np
import torch

from fed_gswgan.algorithms.base import Query, ReleaseShape, Step, Update
from fed_gswgan.algorithms.gs_wgan import TrainedCritic
from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages
from fed_gswgan.settings import Count, Settings

KILL = "FED_GSWGAN_TEST_KILL"  # names the file whose presence lets ``DeadlyCritic`` kill once
DEADLY_ROUND = 5
FIRST_PIXELS = {"ann": (0.75, 1.0, 0.0), "bob": (0.0, 0.0, 0.25), "cy": (0.125, 0.125, 0.125)}


class Colours:
    """Three writers of coloured 32 x 32 images; the first three pixels tell what a writer has."""

    name, unit, image_shape = "colours", "one writer", (3, 32, 32)
    class_names, writer_ids, held_out_writers = ("red", "green"), ("ann", "bob", "cy"), ()

    def __init__(self, settings):
        self.settings = settings

    def shard(self, writer_id):
        images = np.random.default_rng(len(writer_id)).random((6, *self.image_shape), np.float32)
        images[:, 0, 0, :3] = FIRST_PIXELS[writer_id]
        return ClientDataset((writer_id,), images, np.arange(6) % 2)

    def held_out(self):
        images = np.random.default_rng(9).random((8, *self.image_shape), np.float32)
        return LabelledImages(images, np.arange(8) % 2)


class Ratio:
    """Estimates the ratio of two numbers of each client to a weight of it, all in one release."""

    class Settings(Settings):
        last_round: Count = 1000
        scale: float = 4.0

    @staticmethod
    def keeps_state(settings):
        return False

    class Client:
        def __init__(self, settings, spec):
            self.settings = settings

        def release(self, server_round):
            return ReleaseShape(rows=1, numbers=2, extra=1, bounded="message")

        def check(self, request):
            if request.scalars != {"scale": self.settings.scale} or request.tensors:
                raise ValueError(f"scale must be {self.settings.scale:g}, and nothing else")

        def update(self, request, client):
            first, second, weight = client.dataset.images[0, 0, 0, :3] * request.scalars["scale"]
            return Update(np.array([[first, second]]), np.array([weight]))

    class Server:
        def __init__(self, settings, spec, seeds, rounds):
            self.settings, self.shape, self.ratio = settings, spec.image_shape, np.zeros(2)
            self.steps = 0

        def request(self, server_round):
            return Query(scalars={"scale": self.settings.scale})

        def step(self, server_round, query, mean):
            weight = max(mean.extra_E[0], mean.noise_stddev / 4)  # a divisor of mere noise is none
            self.ratio, self.steps = mean.update_RN[0] / weight, self.steps + 1
            stop = "close enough" if server_round == self.settings.last_round else ""
            return Step({"first": self.ratio[0], "noise": mean.noise_stddev}, stop)

        def finish(self):
            return {"steps": float(self.steps), "sum": float(self.ratio.sum())}

        def sampler(self):
            return lambda labels_B, seed: torch.full((len(labels_B), *self.shape), 0.5)

        def state_dict(self):
            return {"ratio": torch.from_numpy(self.ratio), "steps": torch.tensor(self.steps)}

        def load_state_dict(self, state):
            self.ratio, self.steps = state["ratio"].numpy(), int(state["steps"])


class DeadlyCritic(TrainedCritic):
    """Critic that kills the server, of whose worker processes it runs in one, once in a round."""

    def __init__(self, settings, spec):
        super().__init__(settings.model_copy(update={"critic": "mlp"}), spec)

    def fit(self, client, samples_KBCHW, labels_KB, server_round):
        critic = super().fit(client, samples_KBCHW, labels_KB, server_round)
        armed = Path(os.environ.get(KILL, "/nonexistent"))
        if server_round == DEADLY_ROUND and armed.exists():
            armed.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
        return critic

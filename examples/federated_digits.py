"""Federated digits in one file: data, algorithm, three rounds through the guard, samples, epsilon.

Usage: ``python -m examples.federated_digits OUTPUT.png``
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import save_image

from fed_gswgan.algorithms import gs_wgan
from fed_gswgan.algorithms.base import ClientView, Mean
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.digits import DigitsSource
from fed_gswgan.device.guard import Guard
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, owners_hash
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, compose, grid_step
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request, decode_release

ROUNDS, NOISE_STDDEV = 3, 2.14


def main(picture: Path) -> float:
    """Train for three rounds, draw the samples, and return the epsilon that was spent."""
    # The data: real handwritten digits, a block of forms a client.
    source, seeds = DigitsSource("digits", 1), SeedStream(0)
    spec = spec_of(source)
    clients = [
        ClientView(writer, (writer,), partial(source.shard, writer), seeds)
        for writer in source.writer_ids[:4]
    ]

    # The algorithm: its server half holds the generator, its client half the critic.
    settings = gs_wgan.Settings(critic="mlp", batch_size=16, critic_width=64, critic_steps=2)
    server = gs_wgan.Server(settings, spec, seeds, ROUNDS)
    client = gs_wgan.Client(settings, spec)

    with tempfile.TemporaryDirectory() as folder:
        # The guard: between the server and the data. Each owner's policy binds it.
        owners = owners_hash({view.client_id: view.users for view in clients})
        Ledger.create(Path(folder), owners)
        policy = Policy(max_epsilon=60.0, min_noise_stddev=NOISE_STDDEV)
        guard = Guard(Path(folder), owners, "gs-wgan", client, policy)

        for server_round in range(1, ROUNDS + 1):
            # The server asks: samples, and the event that says what an answer costs.
            query, shape = server.request(server_round), client.release(server_round)
            event = Event(
                rows=shape.rows,
                numbers=shape.numbers,
                bounded=shape.bounded,
                clipping_bound=1.0,
                noise_stddev=NOISE_STDDEV,
            )
            request = Request(
                experiment_id="example",
                server_round=server_round,
                algorithm="gs-wgan",
                event=event,
                tensors=query.tensors,
            )
            # Each client answers with the bounded, noised gradient of its critic, and nothing else.
            replies = guard.answer(request.encode(), clients)
            total = np.sum([decode_release(reply, request) for reply in replies], axis=0)
            # The server steps along the mean; the noise averages out, a little.
            mean_RN = (total * grid_step(event) / len(replies)).reshape(shape.rows, shape.numbers)
            noise_of_mean = NOISE_STDDEV / len(replies) ** 0.5
            mean = Mean(mean_RN, mean_RN[0, :0], len(replies), noise_of_mean)
            step = server.step(server_round, query, mean)
            print(f"round {server_round}: {len(replies)} replies, {step.metrics}")

        # The accountant: what the ledger of the first user says.
        with Ledger(Path(folder), owners) as ledger:
            spent = ledger.releases()[clients[0].users[0]]

    epsilon = gaussian_epsilon(compose(spent, NeighboringRelation.REPLACE_ONE), 1e-5)
    print(f"epsilon = {epsilon:.1f} at delta = 1e-05 of each user, after {spent.total()} releases")
    labels_B = torch.arange(10).repeat_interleave(8)
    save_image(1 - server.sampler()(labels_B, 0), picture, nrow=8)
    return epsilon


if __name__ == "__main__":
    main(Path(sys.argv[1]))

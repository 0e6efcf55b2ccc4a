"""What a participation costs a device: milliseconds and bytes of an answer of the Cramér critic.

A hundred clients of the data set ``drawn`` answer in one batch, on one core, in process: request,
ledger, data, gradient, bound, noise, reply. First the features of their images are computed, which
is done once a run; then each further round.

Usage: python -m benchmarks.participation [--clients 100] [--rounds 5] [--epsilon 1]
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from client.shard import ShardHost
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.shards import SimulatedClients
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request, release_bytes
from server.collect import modulus_bits_for

WRITERS = 1232  # whose noise is counted


def main() -> None:
    """Print milliseconds of an image's features and of a participation, and bytes of both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epsilon", type=float, default=1.0)
    options = parser.parse_args()
    table = {
        "dataset": "drawn",
        "classes": "digits",
        "max-clients": options.clients,
        "trust": "secure-aggregation",
        "cohort-size": WRITERS,
        "epsilon": options.epsilon,
        "rounds": 3,
        "prior": "strokes",
    }
    config = Config.from_table(table)
    source = open_source(config.shared)
    spec = spec_of(source)
    config = config.with_noise(spec)
    # The budget of more rounds than the run has, so that many can be timed.
    shared = config.shared.model_copy(update={"max_epsilon": float("inf")})
    config = Config(shared, config.algorithm, config.own)
    server = config.algorithm.Server(config.own, spec, SeedStream(0), shared.rounds)

    def request(server_round: int) -> Request:
        query = server.request(server_round)
        asked = Request(
            experiment_id="benchmark",
            server_round=server_round,
            algorithm=shared.algorithm,
            event=config.event(spec),
            tensors=query.tensors,
            scalars=query.scalars,
        )
        return replace(asked, modulus_bits=modulus_bits_for(asked, shared.cohort_size))

    requests = [request(server_round) for server_round in range(1, options.rounds + 2)]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        SimulatedClients(Path(folder), partitions_of(source, shared), 1).create()
        host = ShardHost(Path(folder), config, 1)
        client_ids = [f"client-{number:05d}" for number in range(options.clients)]
        # Read before the clock runs: drawing them is no part of it.
        images = sum(len(host._view(client_id).dataset.labels) for client_id in client_ids)
        seconds = []
        for asked in requests:
            blob, started = asked.encode(), time.perf_counter()
            replies = host.answer(0, [blob], client_ids)
            seconds.append(time.perf_counter() - started)
            assert all(len(reply) == release_bytes(asked) for reply in replies)
    later = statistics.median(seconds[1:])
    event = requests[0].event
    print(f"{options.clients} clients, {images} images, epsilon {options.epsilon:g}")
    print(f"release: {event.size} numbers, {release_bytes(requests[0])} bytes up")
    print(f"request: {len(requests[0].encode())} bytes down")
    print(f"features of an image, once: {1e3 * (seconds[0] - later) / images:.2f} ms")
    print(f"participation, features known: {1e3 * later / options.clients:.2f} ms")


if __name__ == "__main__":
    main()

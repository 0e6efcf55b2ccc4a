"""The federated runs of the paper's fourth table, as settings of ``simulations.run``."""

from collections.abc import Mapping
from dataclasses import dataclass

from fed_gswgan.flat_table import Value

Settings = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class FederatedMethod:
    """One row of the table.

    Attributes:
        title: in the table.
        settings: of the run, beside those that all rows share.
        matched_to: name of the row whose epsilon this one gets by its noise; empty: its own noise.
    """

    title: str
    settings: Settings
    matched_to: str = ""


SHARED: Mapping[str, Settings] = {
    # Every writer of Fed-EMNIST with at least 60 images, all 62 classes; slim networks for both.
    "small": {
        "dataset": "fed-emnist",
        "classes": "all",
        "min-images-per-writer": 60,
        "generator": "slim",
        "generator-width": 32,
        "latent-dim": 32,
        "latent-kind": "normal",
        "ema-halflife-rounds": 20.0,
        "critic": "mlp",
        "critic-width": 256,
        "noise-source": "seeded",
        "delta": 1.15e-3,
        "neighboring-relation": "replace-one",
        "checkpoint-every": 25,
        "samples-every": 50,
        "evaluation-samples": 10000,
    },
    # The paper's networks and number of rounds; for a GPU and a day.
    "full": {
        "dataset": "fed-emnist",
        "classes": "all",
        "min-images-per-writer": 60,
        "generator": "resnet",
        "generator-width": 64,
        "latent-dim": 10,
        "latent-kind": "bernoulli",
        "ema-halflife-rounds": 1000.0,
        "critic": "conv",
        "critic-width": 64,
        "noise-source": "seeded",
        "delta": 1.15e-3,
        "neighboring-relation": "replace-one",
        "checkpoint-every": 100,
        "samples-every": 1000,
        "evaluation-samples": 10000,
    },
}

_FEDAVG: Settings = {
    "algorithm": "fedavg-gan",
    "cohort-size": 10,
    "batch-size": 32,
    "critic-steps": 6,
    "generator-steps": 6,
    "clipping": "message",
    "clipping-bound": 0.1,
    "noise-stddev": 0.01,
}

METHODS: Mapping[str, Mapping[str, FederatedMethod]] = {
    "small": {
        "gs-wgan": FederatedMethod(
            title="GS-WGAN",
            settings={
                "rounds": 300,
                "cohort-size": 16,
                "batch-size": 48,
                "critic-steps": 10,
                "warm-start-steps": 50,
                "noise-stddev": 2.14,
            },
        ),
        "fedavg-gan": FederatedMethod(
            title="FedAvg-GAN",
            settings={**_FEDAVG, "rounds": 300, "critic-learning-rate": 2e-2},
        ),
        "fedavg-gan-matched": FederatedMethod(
            title="FedAvg-GAN, matched epsilon",
            settings={**_FEDAVG, "rounds": 300, "critic-learning-rate": 2e-2},
            matched_to="gs-wgan",
        ),
    },
    "full": {
        "gs-wgan": FederatedMethod(
            title="GS-WGAN",
            settings={
                "rounds": 20000,
                "cohort-size": 1,
                "batch-size": 48,
                "critic-steps": 5,
                "critic-learning-rate": 1e-4,
                "generator-learning-rate": 1e-4,
                "warm-start-steps": 2000,
                "noise-stddev": 2.14,
            },
        ),
        "fedavg-gan": FederatedMethod(
            title="FedAvg-GAN",
            settings={**_FEDAVG, "rounds": 1000, "critic-learning-rate": 5e-4},
        ),
        "fedavg-gan-matched": FederatedMethod(
            title="FedAvg-GAN, matched epsilon",
            settings={**_FEDAVG, "rounds": 1000, "critic-learning-rate": 5e-4},
            matched_to="gs-wgan",
        ),
    },
}

"""Every centralised method of the paper's first table, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Method:
    """A centralised method: where its training is, and its presets.

    Attributes:
        title: in a table.
        module: under ``fed_gswgan.baselines``; imported when the method is used.
        function: of the module; trains.
        presets: by name, the constant with the settings, in the module of that name and
            ``_settings``.
        seeds: by preset, how many a table runs: three where a seed takes minutes.
    """

    title: str
    module: str
    function: str
    presets: Mapping[str, str]
    seeds: Mapping[str, int]

    def train(self, preset: str, **arguments: Any) -> Any:
        """Train with a preset's settings; returns a ``TrainedBaseline``."""
        train = getattr(_imported(self.module), self.function)
        return train(settings=self.settings(preset), **arguments)

    def settings(self, preset: str) -> Any:
        """Return the settings that a preset names, a dataclass."""
        return getattr(_imported(f"{self.module}_settings"), self.presets[preset])


SMALL_AND_FULL = {"small": "SMALL", "full": "FULL"}
THREE = {"small": 3, "full": 3}

METHODS: Mapping[str, Method] = {
    "gs-wgan": Method(
        title="GS-WGAN",
        module="centralized_gswgan",
        function="train_centralized_gswgan",
        presets=SMALL_AND_FULL,
        seeds=THREE,
    ),
    "dpsgd-gan": Method(
        title="DP-SGD GAN",
        module="dpsgd_gan",
        function="train_dpsgd_gan",
        presets={"small": "SMALL_PAPER_ERA", "full": "FULL_PAPER_ERA"},
        seeds=THREE,
    ),
    "dpsgd-gan-revisited": Method(
        title="DP-SGD GAN, revisited",
        module="dpsgd_gan",
        function="train_dpsgd_gan",
        presets={"small": "SMALL_REVISITED", "full": "FULL_REVISITED"},
        seeds=THREE,
    ),
    "g-pate": Method(
        title="G-PATE",
        module="gpate",
        function="train_gpate",
        presets=SMALL_AND_FULL,
        seeds=THREE,
    ),
    "dp-merf": Method(
        title="DP-MERF",
        module="dp_merf",
        function="train_dp_merf",
        presets=SMALL_AND_FULL,
        seeds=THREE,
    ),
    "dp-merf-ae": Method(
        title="DP-MERF AE",
        module="dp_merf_autoencoder",
        function="train_dp_merf_autoencoder",
        presets=SMALL_AND_FULL,
        seeds=THREE,
    ),
}


def _imported(module: str) -> Any:
    return import_module(f"fed_gswgan.baselines.{module}")

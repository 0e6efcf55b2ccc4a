"""Every centralised method of the paper's first table, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

PRESETS = ("small", "full")
SEEDS = 3  # that a table runs of a method: a seed takes minutes


@dataclass(frozen=True, kw_only=True)
class Method:
    """A centralised method: where its training is, and its presets.

    Attributes:
        title: in a table.
        module: under ``fed_gswgan.baselines``; has ``train`` and settings named SMALL and FULL.
        variant: what follows SMALL and FULL, where a module has several methods.
        dataset: the only one that it is for; empty: any.
        private: whether it sees the data; one that does not runs at one epsilon, 0.
    """

    title: str
    module: str
    variant: str = ""
    dataset: str = ""
    private: bool = True

    def train(self, preset: str, **arguments: Any) -> Any:
        """Train with a preset's settings; returns a ``TrainedBaseline``.

        Args:
            preset: one of ``PRESETS``.
            arguments: by name, as listed below.
            images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1; networks run on their device.
            labels_N: int64 (N,) in [0, ``num_classes``).
            num_classes: of the conditional networks.
            epsilon: at most; the noise is calibrated to it.
            delta: in (0, 1).
            seed: of everything random. The noise too: who knows the seed can subtract it.
            progress: told the share that is done, in [0, 1]; optional.
        """
        return self.imported().train(settings=self.settings(preset), **arguments)

    def settings(self, preset: str) -> Any:
        """Return the settings that a preset names, a dataclass."""
        return getattr(self.imported(), preset.upper() + self.variant)

    def imported(self) -> Any:
        """Import the method's module.

        Raises:
            ModuleNotFoundError: the module needs an extra that is not installed.
        """
        return import_module(f"fed_gswgan.baselines.{self.module}")


METHODS: Mapping[str, Method] = {
    "gs-wgan": Method(title="GS-WGAN", module="centralized_gswgan"),
    "gs-wgan-cramer": Method(title="GS-WGAN, Cramér critic, frequencies", module="solved"),
    "gs-wgan-cramer-strokes": Method(
        title="GS-WGAN, Cramér critic, features of drawn characters",
        module="solved",
        variant="_FEATURES",
    ),
    "gs-wgan-cramer-prior": Method(
        title="GS-WGAN, Cramér critic, from the prior",
        module="solved",
        variant="_PRIOR",
        dataset="mnist",
    ),
    "dp-merf-prior": Method(
        title="DP-MERF from the prior", module="solved", variant="_EMBEDDING", dataset="mnist"
    ),
    "prior": Method(
        title="the prior alone", module="solved", variant="_ALONE", dataset="mnist", private=False
    ),
    "dpsgd-gan": Method(title="DP-SGD GAN", module="dpsgd_gan", variant="_PAPER_ERA"),
    "dpsgd-gan-revisited": Method(
        title="DP-SGD GAN, revisited", module="dpsgd_gan", variant="_REVISITED"
    ),
    "g-pate": Method(title="G-PATE", module="gpate"),
    "dp-merf": Method(title="DP-MERF", module="dp_merf"),
    "dp-merf-ae": Method(title="DP-MERF AE", module="dp_merf_autoencoder"),
}


def methods_for(dataset: str) -> tuple[str, ...]:
    """Return the names of the methods that a data set can be compared with."""
    return tuple(name for name, method in METHODS.items() if method.dataset in ("", dataset))

"""Inception-v3's features, in which alone a Fréchet distance is FID and a kernel distance KID."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.image.fid import NoTrainInceptionV3

from fed_gswgan.evaluation.features import FeatureExtractor

FEATURES = 2048

# The network that FID is defined by, of 2015-12-05, as torch-fidelity converted it.
WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
WEIGHTS_FILE = WEIGHTS_URL.rsplit("/", 1)[-1]
WEIGHTS_SHA256_START = "6726825d"  # torch's convention: the last part of the file's name


class InceptionUnavailable(RuntimeError):
    """Inception-v3 cannot be had here; a caller may fall back to other features, and say so."""


class InceptionFeatures(FeatureExtractor):
    """The 2,048 numbers after the last pooling; gray is repeated for red, green and blue.

    Enlarged to 299x299 as the original TensorFlow graph does, not as PyTorch would.

    Args:
        weights: torch-fidelity's file.

    Raises:
        InceptionUnavailable: torch-fidelity is not installed.
    """

    num_features = FEATURES
    description = "Inception-v3"

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            self.network = NoTrainInceptionV3(
                "inception-v3-compat", [str(FEATURES)], str(weights), antialias=False
            )
        except ModuleNotFoundError as error:
            raise InceptionUnavailable(
                "Inception-v3 needs torch-fidelity: pip install torch-fidelity"
            ) from error

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features, float64 (B, 2048) on the CPU, of images in [0, 1]."""
        bytes_BCHW = (images_BCHW * 255).round().to(torch.uint8)
        features_BF: Tensor = self.network(bytes_BCHW.expand(-1, 3, -1, -1))
        return features_BF.cpu().double()


def inception_features(device: torch.device, weights: Path | None = None) -> InceptionFeatures:
    """Return the extractor that FID and KID are defined with.

    Args:
        device: where the network runs; a CPU core reads a few images a second.
        weights: torch-fidelity's file; None: in torch's cache of downloads, fetched if need be.

    Raises:
        InceptionUnavailable: there is no such file and it cannot be downloaded, it is another
            one, or torch-fidelity is not installed; says what to do.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    if weights is None and not path.is_file():
        _download(path)
    if not path.is_file():
        raise InceptionUnavailable(f"{path}: no such file; fetch {WEIGHTS_URL} and name it")
    # The file is unpickled, so it must be the one that is known.
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(WEIGHTS_SHA256_START):
        raise InceptionUnavailable(
            f"{path}: SHA-256 {found[:8]} must be {WEIGHTS_SHA256_START}; fetch {WEIGHTS_URL} again"
        )
    return InceptionFeatures(path).to(device)


def _download(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(WEIGHTS_URL, str(path), WEIGHTS_SHA256_START, progress=False)
    except (OSError, RuntimeError) as error:  # no network, or another file
        raise InceptionUnavailable(
            f"{path}: not there, and not to be downloaded ({error}); "
            f"fetch {WEIGHTS_URL} elsewhere and put it there"
        ) from error

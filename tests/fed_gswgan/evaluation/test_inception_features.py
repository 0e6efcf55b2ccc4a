import hashlib
from urllib.error import URLError

import pytest
import torch
from torchmetrics.image.fid import NoTrainInceptionV3

from fed_gswgan.evaluation import scores as module
from fed_gswgan.evaluation.scores import (
    WEIGHTS_FILE,
    InceptionUnavailable,
    inception_features,
)

CPU = torch.device("cpu")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of downloads, and no network."""

    def unreachable(*_args, **_settings):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return tmp_path


def test_without_a_network_the_message_says_where_the_file_belongs(hub):
    with pytest.raises(InceptionUnavailable, match="no network") as error:
        inception_features(CPU)
    assert str(hub / "checkpoints" / WEIGHTS_FILE) in str(error.value)
    assert "fetch https://github.com/toshas/torch-fidelity/" in str(error.value)


def test_a_named_file_that_is_not_there_is_not_downloaded_but_refused(tmp_path):
    with pytest.raises(InceptionUnavailable, match=r"missing\.pth: no such file; fetch https"):
        inception_features(CPU, tmp_path / "missing.pth")


def test_another_file_is_refused_before_it_is_read_as_weights(hub):
    path = hub / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir()
    path.write_bytes(b"half a download")
    start = hashlib.sha256(b"half a download").hexdigest()[:8]
    with pytest.raises(InceptionUnavailable, match=f"SHA-256 {start} must be 6726825d; fetch"):
        inception_features(CPU)


def test_without_torch_fidelity_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"right")
    start = hashlib.sha256(b"right").hexdigest()[:8]
    monkeypatch.setattr(module, "WEIGHTS_SHA256_START", start)
    with pytest.raises(InceptionUnavailable, match="pip install torch-fidelity"):
        inception_features(CPU, path)


def test_features_are_torch_fidelitys_own_of_the_same_bytes(tmp_path, monkeypatch, spots):
    fidelity = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is not installed"
    )
    kind = fidelity.FeatureExtractorInceptionV3
    path = tmp_path / "random.pth"
    with monkeypatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_args, **_settings: {})
        patch.setattr(kind, "load_state_dict", lambda self, state: None)
        torch.save(kind("inception-v3-compat", ["2048"]).state_dict(), path)
    start = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(module, "WEIGHTS_SHA256_START", start)

    images = spots.draw(spots.labels(4), 0)
    extractor = inception_features(CPU, path)
    found = extractor(images)
    assert isinstance(extractor.network, NoTrainInceptionV3)
    assert found.shape == (4, extractor.num_features) == (4, 2048)
    assert found.dtype == torch.float64
    gray = (images * 255).round().byte()
    expected = kind("inception-v3-compat", ["2048"], str(path))(torch.cat([gray] * 3, dim=1))[0]
    torch.testing.assert_close(found, expected.double())
    assert found.std() > 0

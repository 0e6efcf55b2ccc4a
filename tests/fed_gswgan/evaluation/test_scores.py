import hashlib
from itertools import pairwise
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import NoTrainInceptionV3

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.evaluation import scores as module
from fed_gswgan.evaluation.scores import (
    WEIGHTS_FILE,
    ClassifierFeatures,
    InceptionUnavailable,
    Vgg11,
    crop_and_flip,
    inception_features,
    kept_score_classifier,
    train_score_classifier,
)


def silent(_line):
    pass


def test_vgg11_has_the_published_layers():
    vgg = Vgg11(10)
    convolutions = [part for part in vgg.modules() if isinstance(part, torch.nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert [part.padding[0] for part in convolutions] == [3, 1, 1, 1, 1, 1, 1, 1]
    widths = [1, 64, 128, 256, 256, 512, 512, 512, 512]
    expected = sum(9 * a * b + 3 * b for a, b in pairwise(widths)) + 5130
    assert sum(parameter.numel() for parameter in vgg.parameters()) == expected


def test_crops_are_shifts_of_up_to_four_pixels_and_half_of_them_mirrored():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 14, 9:12] = torch.tensor([0.2, 0.4, 1.0])  # brighter to the right
    changed = crop_and_flip(image.expand(2000, 1, 28, 28), np.random.default_rng(0))[:, 0]
    rows, columns = (changed == 1).nonzero(as_tuple=True)[1:]
    assert len(rows) == 2000
    assert sorted(set((rows - 14).tolist())) == list(range(-4, 5))
    mirrored = changed[torch.arange(2000), rows, columns - 1] == 0
    assert sorted(set((columns[~mirrored] - 11).tolist())) == list(range(-4, 5))
    assert sorted(set((columns[mirrored] - 16).tolist())) == list(range(-4, 5))
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_what_moves_in_from_outside_is_paper():
    changed = crop_and_flip(torch.ones(100, 1, 28, 28), np.random.default_rng(0))
    assert set(changed.unique().tolist()) == {0.0, 1.0}


def test_the_published_judge_refuses_images_of_another_shape():
    with pytest.raises(ValueError, match=r"vgg11 is published for images \(N, 1, 28, 28\)"):
        train_score_classifier(torch.zeros(8, 3, 32, 32), torch.arange(8), 8, "vgg11", 1, 0, silent)


@pytest.mark.parametrize(("kind", "amount"), [("small", 2), ("vgg11", 1)])
def test_a_kept_judge_says_what_it_said(kind, amount):
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    judge = train_score_classifier(images, labels, 4, kind, amount, 0, silent)
    again = kept_score_classifier(kind, DataSpec(IMAGE_SHAPE, 4), judge.state_dict())
    assert not again.training
    assert torch.equal(judge(images), again(images))


def test_features_are_what_the_logits_are_made_of(spots, judge):
    images = spots.draw(spots.labels(16), 2)
    extractor = ClassifierFeatures(judge, "spots")
    with torch.no_grad():
        features = extractor(images)
        torch.testing.assert_close(judge.logits(features.float()), judge(images))
    assert features.dtype == torch.float64
    assert features.shape == (16, extractor.num_features) == (16, 64)
    assert extractor.description == "spots"


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

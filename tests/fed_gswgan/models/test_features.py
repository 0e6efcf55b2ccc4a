import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fed_gswgan.basis import to_release_basis
from fed_gswgan.models.features import (
    FeatureNetwork,
    Features,
    HiddenLayers,
    NetworkComponents,
)
from fed_gswgan.models.registry import initial_weights_from

IMAGES = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def components():
    with initial_weights_from(3):
        found = NetworkComponents(HiddenLayers(4), 6)
    found.fit(IMAGES)
    return found


def test_the_network_gives_a_logit_a_class_whatever_the_image_size():
    network = FeatureNetwork(5, width=4)
    for side in (28, 32):
        images = torch.rand(3, 1, side, side)
        assert network(images).shape == (3, 5)
        second, third = network.hidden(images)
        assert second.shape[1:] == (8, side // 2, side // 2)
        assert third.shape[1:] == (8, side // 4, side // 4)


def test_components_are_those_of_an_independent_program(components):
    activations = components._scaled(components._layers(IMAGES)).numpy()
    reference = PCA(6, svd_solver="full").fit_transform(activations)
    found = components(IMAGES).numpy()
    assert np.abs(found) == pytest.approx(np.abs(reference), abs=1e-3)
    assert np.square(found).mean(0) == pytest.approx(components.variances_K.numpy(), rel=1e-3)


def test_both_layers_weigh_the_same(components):
    half = components._scaled(components._layers(IMAGES)).shape[1] // 2
    centred = components._scaled(components._layers(IMAGES)) - components.mean_A
    lengths = [part.square().sum(1).mean() for part in (centred[:, :half], centred[:, half:])]
    assert lengths == pytest.approx([1.0, 1.0], rel=1e-4)


def test_frequencies_are_those_of_the_release_basis():
    images = torch.rand(4, 3, 16, 16)
    found = Features(5)(images)
    expected = to_release_basis(images.numpy(), 5).reshape(4, -1)
    assert found.numpy() == pytest.approx(expected, abs=1e-5)
    assert Features(5).size((3, 16, 16)) == found.shape[1] == 75


def test_an_image_has_the_same_features_in_every_batch(components):
    features = Features(7, components, 5)
    found = features(IMAGES)
    assert found.shape == (60, features.size((1, 28, 28))) == (60, 49 + 5)
    torch.testing.assert_close(features(IMAGES[7:9]), found[7:9], atol=1e-5, rtol=0)


def test_gradients_flow_to_the_images_alone(components):
    images = IMAGES[:2].clone().requires_grad_()
    Features(7, components, 6)(images).square().sum().backward()
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in components.parameters())


def test_the_networks_part_has_its_share_however_many_components_there_are(components):
    for count in (2, 6):
        part = Features(1, components, count, share=3.0)(IMAGES)[:, 1:]
        assert part.shape == (60, count)
        assert part.square().sum(1).mean() == pytest.approx(9, rel=1e-3)
    with pytest.raises(ValueError, match=r"feature-components=7 must be 1\.\.6"):
        Features(7, components, 7)


def test_the_hash_tells_weights_and_numbers_apart(components):
    known = Features(7, components, 6).hash()
    assert Features(7, components, 6).hash() == known
    others = Features(8, components, 6), Features(7, components, 5), Features(7)
    assert known not in {other.hash() for other in others}
    with initial_weights_from(4):
        other = NetworkComponents(HiddenLayers(4), 6)
    assert Features(7, other, 6).hash() != known
    other.load_state_dict(components.state_dict())
    assert Features(7, other, 6).hash() == known

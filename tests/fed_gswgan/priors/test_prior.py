"""Priors by name: what ships, what a folder holds, and what does not fit."""

import json

import pytest
import torch

from fed_gswgan.algorithms.fedavg_gan import Settings
from fed_gswgan.critics.wgan_gp import sample_gradient
from fed_gswgan.data.characters import CHARACTERS, DIGITS
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.features import HiddenLayers, NetworkComponents
from fed_gswgan.models.registry import build_critic, build_generator
from fed_gswgan.models.trainer import sampler_of
from fed_gswgan.priors import prior
from fed_gswgan.priors.prior import PriorSettings, open_features, open_prior, write_prior

SHAPE = (1, 28, 28)
DIGITS_SPEC = DataSpec(SHAPE, 10, DIGITS)
SMALL = Settings(generator_width=4, latent_dim=3, critic_width=8)
ABOUT = {
    "source": "images", "class-names": ["cat", "dog"], "seed": 4,
    "generator": {"generator-width": 4, "latent-dim": 3},
    "critic": {"critic": "mlp", "critic-width": 8},
}  # fmt: skip
PETS = DataSpec(SHAPE, 2, ("cat", "dog"))


@pytest.fixture
def five_drawings(few_drawings):
    few_drawings(5)


@pytest.fixture
def folder(tmp_path):
    networks = {
        "generator": build_generator(SMALL, PETS, 1),
        "critic": build_critic(SMALL, PETS, 2),
    }
    components = NetworkComponents(HiddenLayers(2), 4)
    pool = torch.rand(2, 6, 28, 28, generator=torch.Generator().manual_seed(0))
    write_prior(tmp_path / "pets", ABOUT, networks, components, pool)
    return tmp_path / "pets"


def test_the_shipped_priors_are_small_and_draw_their_classes(five_drawings):
    files = [path for name in (DIGITS, CHARACTERS) for path in prior.shipped(name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 6e6
    for names in (DIGITS, ("7", "b", "Q")):
        spec = DataSpec(SHAPE, len(names), names)
        found = open_prior(PriorSettings(prior="strokes"), spec)
        settings = Settings()  # what a run has unless it says otherwise
        generator, critic = build_generator(settings, spec, 0), build_critic(settings, spec, 0)
        found.start(generator, "generator", settings)
        found.start(critic, "critic", settings)
        labels = torch.arange(len(names)).repeat_interleave(40)
        samples, pool = sampler_of(generator, settings)(labels, 0), found.pool()
        assert pool.shape == (len(names), 5, 28, 28)
        # Of ink on paper, most pixels are paper; a network without weights paints grey.
        assert 0.02 < samples.mean() < 0.15
        # The penalty of WGAN-GP has brought the critic's slope to 1; a new critic's is near 0.1.
        drawings, labels = (
            pool.flatten(0, 1)[:, None],
            torch.arange(len(names)).repeat_interleave(5),
        )
        slopes = sample_gradient(critic, drawings, labels).flatten(1).norm(dim=1)
        assert 0.5 < slopes.mean() < 2


def test_a_subset_of_all_characters_has_their_rows(five_drawings):
    some = open_prior(PriorSettings(prior="strokes"), DataSpec(SHAPE, 2, ("b", "7")))
    every = open_prior(PriorSettings(prior="strokes"), DataSpec(SHAPE, 62, CHARACTERS))
    key = "generator/class_embedding.weight"
    rows = [CHARACTERS.index("b"), 7]
    assert torch.equal(some.weights[key], every.weights[key][rows])


def test_a_folder_gives_back_what_was_written(folder):
    found = open_prior(PriorSettings(prior=f"folder:{folder}"), PETS)
    pool = torch.rand(2, 6, 28, 28, generator=torch.Generator().manual_seed(0))
    assert found.pool() == pytest.approx(pool, abs=0.5 / 255 + 1e-6)
    generator, written = build_generator(SMALL, PETS, 9), build_generator(SMALL, PETS, 1)
    found.start(generator, "generator", SMALL)
    for name, tensor in generator.state_dict().items():
        assert tensor == pytest.approx(written.state_dict()[name], abs=1e-3)  # float16
    settings = PriorSettings(features=f"file:{folder}/features.safetensors", feature_components=4)
    assert open_features(settings, PETS).size(SHAPE) == 49 + 4


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("stroke", DIGITS_SPEC, "prior='stroke' must be strokes, folder:PATH or none"),
        ("folder:", DIGITS_SPEC, "must be strokes, folder:PATH or none"),
        ("strokes", DataSpec(SHAPE, 10), "needs a data set that names its classes"),
        ("strokes", DataSpec(SHAPE, 1, ("cat",)), "prior=strokes has no class 'cat'"),
        ("strokes", DataSpec((3, 28, 28), 10, DIGITS), r"has no images of shape \(3, 28, 28\)"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused_by_name(name, spec, said):
    with pytest.raises(ValueError, match=said):
        open_prior(PriorSettings(prior=name), spec)


def test_a_network_of_other_settings_is_refused_by_key(folder):
    found = open_prior(PriorSettings(prior=f"folder:{folder}"), PETS)
    other = SMALL.model_copy(update={"latent_dim": 5})
    with pytest.raises(
        ValueError, match="latent-dim=5 must be 3, as of the generator of the prior"
    ):
        found.start(build_generator(other, PETS, 0), "generator", other)


def test_a_damaged_or_missing_file_is_refused(folder):
    blob = bytearray((folder / "prior.safetensors").read_bytes())
    blob[-1] ^= 1
    (folder / "prior.safetensors").write_bytes(blob)
    with pytest.raises(ValueError, match=r"prior.safetensors is damaged"):
        open_prior(PriorSettings(prior=f"folder:{folder}"), PETS)
    with pytest.raises(FileNotFoundError):
        open_prior(PriorSettings(prior=f"folder:{folder}/nowhere"), PETS)
    about = json.loads((folder / "prior.json").read_text())
    (folder / "prior.json").write_text(json.dumps(about | {"sha256": {}}))
    with pytest.raises(ValueError, match=r"features.safetensors is damaged"):
        open_features(PriorSettings(features=f"file:{folder}/features.safetensors"), PETS)


def test_no_prior_is_none_and_needs_no_names():
    assert open_prior(PriorSettings(), DataSpec((3, 8, 8), 2)) is None


@pytest.mark.parametrize(
    ("changed", "shape", "said"),
    [
        ({"features": "pixels"}, SHAPE, "features='pixels' must be strokes, dct, random or file"),
        ({"features": "file:"}, SHAPE, "must be strokes, dct, random or file:PATH"),
        ({}, (3, 28, 28), "reads images of one channel, these have 3; set features=dct"),
        ({"features": "dct"}, (1, 28, 20), "the side of square images; these are 28 x 20"),
        ({"features": "dct", "feature_frequencies": 9}, (1, 8, 8), "must be <= 8"),
        ({"feature_components": 1000}, SHAPE, r"feature-components=1000 must be 1\.\.192"),
    ],
)
def test_features_that_do_not_suit_the_images_are_refused(changed, shape, said):
    with pytest.raises(ValueError, match=said):
        open_features(PriorSettings(**changed), DataSpec(shape, 2))


def test_features_by_name_are_the_same_in_every_process_and_unlike_each_other(five_drawings):
    found = [
        open_features(PriorSettings(features=name, feature_components=5), DIGITS_SPEC)
        for name in ("dct", "strokes", "random")
    ]
    assert [features.size(SHAPE) for features in found] == [49, 54, 54]
    assert len({features.hash() for features in found}) == 3
    again = open_features(PriorSettings(feature_components=5), DIGITS_SPEC)
    assert again.hash() == found[1].hash()
